//! A server that answers as each request asks for in its field `x-script`, whatever that means, and keeps every byte it
//! hears: those before it answered apart from those after.

use crate::wire1::PATIENCE;
use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// How long the server listens for what comes too early. What is there comes at once; a slow machine misses faults, it
/// invents none.
const PAUSE: Duration = Duration::from_millis(30);

/// What was heard on one connection.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The first head.
    pub head: String,
    /// What came behind it before anything was answered.
    pub early: Vec<u8>,
    /// What came afterwards.
    pub late: Vec<u8>,
}

impl Heard {
    /// Everything.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}{}{}", self.head, self.early.escape_ascii(), self.late.escape_ascii())
    }
}

type Notes = Arc<Mutex<Vec<Heard>>>;

fn open(notes: &Notes) -> MutexGuard<'_, Vec<Heard>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server.
#[derive(Debug)]
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    notes: Notes,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Starts it.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let notes = Notes::default();
        let shared = notes.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Ok(Self { address, notes, task })
    }

    /// What was heard on each connection so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        open(&self.notes).clone()
    }

    /// The same, once there is something: who gave up waiting for this server may know that before the server had its turn.
    pub async fn heard_at_last(&self) -> Vec<Heard> {
        let begun = Instant::now();
        while self.heard().is_empty() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.heard()
    }

    /// Forgets it. Connections that are open are heard no more.
    pub fn forget(&self) {
        open(&self.notes).clear();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, notes: Notes) {
    let mut input = Vec::new();
    let end = loop {
        if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
    };
    let early = input.split_off(end);
    let head = String::from_utf8_lossy(&input).into_owned();
    let script = script(&head);
    let number = {
        let mut notes = open(&notes);
        notes.push(Heard { head, early, late: Vec::new() });
        notes.len() - 1
    };
    let note = |bytes: &[u8], early: bool| {
        if let Some(heard) = open(&notes).get_mut(number) {
            if early { &mut heard.early } else { &mut heard.late }.extend_from_slice(bytes);
        }
    };
    let mut piece = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(PAUSE, stream.read(&mut piece)).await {
        note(&piece[..count], true);
    }
    for word in script.split_whitespace() {
        // What follows leaves together with the end of the connection.
        if word == "cork" {
            let _ = socket2::SockRef::from(&stream).set_tcp_cork(true);
            continue;
        }
        let Some(answer) = answer(word) else { return };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        note(&piece[..count], false);
    }
}

fn script(head: &str) -> String {
    head.lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("x-script")))
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// What a word of a script means; `None` hangs up.
fn answer(word: &str) -> Option<String> {
    Some(match word {
        "101" => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".into(),
        "until-close" => "HTTP/1.1 200 OK\r\n\r\nbody".into(),
        "chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n".into(),
        "half" => "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf".into(),
        "garbage" => "SSH-2.0-server\r\n\r\n".into(),
        "nothing" => String::new(),
        "close" => return None,
        status if status.starts_with('1') => format!("HTTP/1.1 {status} Wait\r\nlink: </x>\r\n\r\n"),
        "204" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        status => format!("HTTP/1.1 {status} Such\r\ncontent-length: 4\r\n\r\nbody"),
    })
}
