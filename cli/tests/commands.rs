//! The command as users run it: exit codes, one-line errors, the stand-in workload, offline analysis. Every test stands
//! alone and needs no network but loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn tombolo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    command.env_remove("TOMBOLO_UP_STATE");
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(args: &[&str]) -> Ran {
    let output = tombolo().args(args).output().expect("the binary is built");
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).expect("it prints text"),
        err: String::from_utf8(output.stderr).expect("it prints text"),
    }
}

fn shop(site: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/shop").join(site)
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn says_its_version() {
    let ran = run(&["version"]);
    assert_eq!(ran.out, format!("tombolo {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(ran.code, 0);
}

#[test]
fn errors_are_one_line_and_name_what_is_wrong() {
    let empty = tempfile::tempdir().unwrap();
    let state = empty.path().display().to_string();
    let check = |args: &[&str], part: &str| {
        let ran = run(args);
        assert_ne!(ran.code, 0, "{args:?}");
        assert!(ran.err.starts_with("error: ") && ran.err.contains(part), "{args:?}: {}", ran.err);
        assert_eq!(ran.err.trim_end().lines().count(), 1, "{args:?}: {}", ran.err);
    };
    check(&["federation", "status", "--state", &state], "no `tombolo up` runs in");
    check(&["federation", "status", "--admin", "127.0.0.1:1"], "127.0.0.1:1");
    check(&["federation", "status", "--admin", "nowhere"], "HOST:PORT");
    check(&["proxy-config", "web", "--state", &state], "no `tombolo up` runs in");
    check(&["analyze", "/nonexistent-folder"], "/nonexistent-folder");
    check(&["up", "--state", &state, "--site", "east"], "NAME=DIR");
    check(&["up", "--state", &state, "--site", "east=/nonexistent-folder"], "/nonexistent-folder");
    check(&["up", "--state", &state, "--check", "--site", &format!("east={state}")], "--check");
}

#[test]
fn up_refuses_a_folder_that_is_not_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), "").unwrap();
    let ran = run(&["up", "--state", &folder.path().display().to_string(), "--loopback-base", "200"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not made by tombolo up"), "{}", ran.err);
    assert!(folder.path().join("photo.jpg").exists());
}

#[test]
fn analyze_finds_nothing_wrong_with_the_samples() {
    let sites = ["east", "west", "vm"].map(|site| shop(site).display().to_string());
    let ran = run(&["analyze", &sites[0], &sites[1], &sites[2]]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(" 0 errors, 0 warnings"), "{}", ran.out);
}

#[test]
fn analyze_names_object_field_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(shop("east").join("reviews-routes.yaml")).unwrap();
    std::fs::write(folder.path().join("reviews.yaml"), text.replace("weight: 80", "weight: plenty")).unwrap();
    let path = folder.path().display().to_string();
    let ran = run(&["analyze", &path]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    for part in ["error", "VirtualService default/reviews", "weight", "reviews.yaml:"] {
        assert!(ran.out.contains(part), "{part:?} is missing in {}", ran.out);
    }
    let json: serde_json::Value = serde_json::from_str(&run(&["analyze", "-o", "json", &path]).out).unwrap();
    assert!(json.as_array().unwrap().iter().any(|d| d["severity"] == "error"), "{json}");
}

#[test]
fn the_workload_answers_and_stops_on_request() {
    let at = tombolo_tests_kit::free();
    let command = tombolo()
        .args(["workload", "--name", "w", "--label", "app=w", "--listen", &at.to_string()])
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(command.unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(&at.to_string()), "{line}");
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET /x HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"workload\": \"w\"") && answer.contains("\"path\": \"/x\""), "{answer}");
    let pid = nix::unistd::Pid::from_raw(running.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_child_ends_with_its_parents_pipe() {
    let command = tombolo()
        .args(["workload", "--listen", "127.0.0.78:0"])
        .env("TOMBOLO_STDIN_LIFELINE", "1")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(command.unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(running.0.try_wait().unwrap().is_none());
    drop(running.0.stdin.take());
    assert!(running.0.wait().unwrap().success());
}
