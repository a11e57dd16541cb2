//! HTTP/1 by hand: a client that sends any bytes and reads answers.

use anyhow::{Context as _, Result, bail};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// How long anything may take on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head without the first line, as sent.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the only field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A connection.
#[derive(Debug)]
pub struct Wire<S> {
    /// What it runs over.
    pub stream: S,
    /// What was read and not used.
    pub ahead: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection over a stream.
    pub const fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Sends bytes. A server that has heard enough may hang up before it has read everything, which is no error here.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads more; false at the end, however it came.
    ///
    /// # Errors
    /// When nothing happens for long.
    pub async fn more(&mut self) -> Result<bool> {
        let read =
            timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.context("the other side is silent")?;
        Ok(read.is_ok_and(|count| count > 0))
    }

    /// The next answer that is not informational; `None` when the connection ends instead.
    ///
    /// # Errors
    /// When it is no HTTP.
    pub async fn answer(&mut self, to_head: bool) -> Result<Option<Answer>> {
        loop {
            match self.any_answer(to_head).await? {
                Some(answer) if answer.status < 200 && answer.status != 101 => {}
                other => return Ok(other),
            }
        }
    }

    /// The next answer, informational ones among them.
    ///
    /// # Errors
    /// When it is no HTTP.
    pub async fn any_answer(&mut self, to_head: bool) -> Result<Option<Answer>> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await? {
                return if self.ahead.is_empty() { Ok(None) } else { bail!("an answer broke off") };
            }
        };
        let head = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
        self.ahead.drain(..end);
        let (line, rest) = head.split_once("\r\n").context("a line")?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).context("a status line")?;
        let mut answer = Answer { status: status.parse()?, head: rest.to_owned(), body: Vec::new() };
        if to_head || answer.status < 200 || matches!(answer.status, 204 | 304) {
            return Ok(Some(answer));
        }
        answer.body = self.body(&answer).await?;
        Ok(Some(answer))
    }

    async fn body(&mut self, answer: &Answer) -> Result<Vec<u8>> {
        if answer.field("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16)?;
                self.until(size + 2).await?;
                let chunk: Vec<u8> = self.ahead.drain(..size + 2).take(size).collect();
                if chunk.is_empty() {
                    return Ok(body);
                }
                body.extend(chunk);
            }
        }
        if let Some(length) = answer.field("content-length") {
            let length = length.parse()?;
            self.until(length).await?;
            return Ok(self.ahead.drain(..length).collect());
        }
        while self.more().await? {}
        Ok(std::mem::take(&mut self.ahead))
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8(self.ahead.drain(..end + 2).take(end).collect())?;
                return Ok(line);
            }
            if !self.more().await? {
                bail!("a body broke off");
            }
        }
    }

    /// Reads until so many bytes are there.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn until(&mut self, length: usize) -> Result<()> {
        while self.ahead.len() < length {
            if !self.more().await? {
                bail!("the connection ended after {} of {length} bytes", self.ahead.len());
            }
        }
        Ok(())
    }

    /// What still comes until the other side ends the connection by itself.
    ///
    /// # Errors
    /// When it stays.
    pub async fn rest(mut self) -> Result<Vec<u8>> {
        while self.more().await? {}
        Ok(self.ahead)
    }

    /// Says that no more will be sent and waits for the same; what still came.
    ///
    /// # Errors
    /// When the other side stays.
    pub async fn end(mut self) -> Result<Vec<u8>> {
        let _ = self.stream.shutdown().await;
        while self.more().await? {}
        Ok(self.ahead)
    }
}
