//! Ports of one process and of several at a time.

use super::{SIZE, free};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
};

/// Set for a process that is to say its ports.
const SAYS: &str = "TOMBOLO_TESTS_KIT_SAYS_PORTS";
/// More than a block has.
const MANY: u16 = SIZE + SIZE / 2;

/// Ends with the test, however that ends.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A test only by name: what the other processes of the next one do.
#[test]
fn says_ports() {
    if std::env::var_os(SAYS).is_none() {
        return;
    }
    let ports: Vec<String> = (0..MANY).map(|_| free().port().to_string()).collect();
    println!("\nports {}", ports.join(" "));
    // They are held until the reader has all.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn processes_share_no_port() {
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ports::tests::says_ports", "--nocapture"])
            .env(SAYS, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut others: Vec<Other> = (0..6).map(|_| Other(spawn())).collect();
    let mut seen: BTreeSet<u16> = (0..MANY).map(|_| free().port()).collect();
    assert_eq!(seen.len(), usize::from(MANY), "one is given twice");
    for other in &mut others {
        let lines = BufReader::new(other.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.into_iter().find_map(|line| line.strip_prefix("ports ").map(str::to_owned)).unwrap();
        for port in line.split(' ') {
            assert!(seen.insert(port.parse().unwrap()), "two processes have {port}");
        }
    }
    assert_eq!(seen.len(), 7 * usize::from(MANY));
}

#[test]
fn what_is_taken_is_passed_over() {
    // Whatever is next in this process's block, somebody has it.
    let next = free().port() + 1;
    let _taken = (TcpListener::bind(("::1", next)), UdpSocket::bind(("127.0.0.1", next)));
    let given: Vec<u16> = (0..MANY).map(|_| free().port()).collect();
    assert!(!given.contains(&next), "{next} is given");
}
