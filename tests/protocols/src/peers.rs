//! Programs of others: Python packages in environments of their own, below the target folder.

use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Set to anything but `0`, this leaves out the tests that need peers which cannot be had.
pub const WITHOUT_PEERS: &str = "TOMBOLO_TESTS_WITHOUT_PEERS";

/// Whether the user chose to leave out tests with such peers.
#[must_use]
pub fn left_out() -> bool {
    std::env::var(WITHOUT_PEERS).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// A Python with packages installed, such as `aioquic==1.3.0`; its environment is named after the first.
///
/// # Errors
/// When python3, its venv module or a package cannot be had. The text names the variable that leaves these tests out.
pub fn python(packages: &[&str]) -> Result<PathBuf> {
    install(packages).with_context(|| {
        format!("{packages:?} could not be had; to leave out the tests that need them set {WITHOUT_PEERS}=1")
    })
}

fn install(packages: &[&str]) -> Result<PathBuf> {
    let name = packages.first().context("no package")?.replace("==", "-");
    let peers = target_folder()?.join("peers");
    fs::create_dir_all(&peers)?;
    let home = peers.join(&name);
    let (python, done) = (home.join("bin").join("python"), home.join("installed"));
    // Tests run side by side; the lock lets one of them install and the others wait.
    let lock = File::create(peers.join(format!("{name}.lock")))?;
    lock.lock()?;
    if !done.exists() {
        let _ = fs::remove_dir_all(&home);
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        File::create(done)?;
    }
    Ok(python)
}

/// What a script of theirs printed: a line of JSON for each case, with `ok`, and one that says `end`. All are well, and at
/// least as many as the script has.
///
/// # Panics
/// When they are not.
pub fn judge(output: &std::process::Output, least: usize) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let case = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}\n{errors}"));
    let cases: Vec<serde_json::Value> = text.lines().map(case).collect();
    let failed: Vec<_> = cases.iter().filter(|case| case["ok"] != true).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}\n{errors}", failed.len(), cases.len());
    assert!(output.status.success() && cases.len() >= least, "{} cases, {}\n{errors}", cases.len(), output.status);
    assert!(cases.last().is_some_and(|case| case["case"] == "end"), "it ended early\n{errors}");
}

/// The `target` folder in which this test was built.
fn target_folder() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let found = executable.ancestors().find(|path| path.join("CACHEDIR.TAG").exists());
    found.map(Path::to_path_buf).context("the test does not run from a cargo target folder")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("could not start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
