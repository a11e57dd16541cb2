//! Reading HTTP/1 as it is on the wire. Owns no library and no opinion: what came is what is recorded. Used by clients and
//! backends.

use std::{
    io,
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Anything that bytes go through.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// Why nothing more was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The other side ended.
    End,
    /// The other side broke off.
    Reset,
    /// Nothing came in time.
    Quiet,
    /// TLS failed, and how.
    Tls(String),
}

impl Gone {
    /// In a word.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::End => "end".into(),
            Self::Reset => "reset".into(),
            Self::Quiet => "quiet".into(),
            Self::Tls(reason) => format!("tls: {reason}"),
        }
    }

    fn from_error(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::AlertReceived(alert)) => Self::Tls(format!("{alert:?}")),
            Some(other) => Self::Tls(other.to_string()),
            // TLS that ends without a word, as its peers often do.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::End,
            None => Self::Reset,
        }
    }
}

/// A connection with what was read ahead.
pub struct Wire {
    /// The connection.
    pub stream: Box<dyn Duplex>,
    /// Read and not yet used.
    pub buffer: Vec<u8>,
    /// When reading gives up.
    pub deadline: Instant,
    /// Waits before each read.
    pub pace: Duration,
    /// How it ended, once it has.
    pub gone: Option<Gone>,
}

/// One message.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Interim answers before it.
    pub interim: Vec<(String, Vec<(String, String)>)>,
    /// Why the body is not whole.
    pub broken: Option<String>,
}

impl Message {
    /// The values of a field.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    fn chunked(&self) -> bool {
        self.values("transfer-encoding").any(|v| v.to_ascii_lowercase().contains("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.values("content-length").next().and_then(|v| v.parse().ok())
    }
}

/// How the end of a body is known.
enum Framing {
    None,
    Length(usize),
    Chunked,
    ToTheEnd,
}

impl Wire {
    /// A connection from which nothing was read.
    #[must_use]
    pub fn new(stream: Box<dyn Duplex>, patience: Duration) -> Self {
        Self { stream, buffer: Vec::new(), deadline: Instant::now() + patience, pace: Duration::ZERO, gone: None }
    }

    /// Reads more.
    ///
    /// # Errors
    /// When nothing more comes.
    pub async fn more(&mut self) -> Result<(), Gone> {
        if let Some(gone) = &self.gone {
            return Err(gone.clone());
        }
        tokio::time::sleep(self.pace).await;
        let mut space = vec![0; 65536];
        let left = self.deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, self.stream.read(&mut space)).await {
            Err(_) => return Err(Gone::Quiet),
            Ok(Ok(0)) => self.gone = Some(Gone::End),
            Ok(Err(error)) => self.gone = Some(Gone::from_error(&error)),
            Ok(Ok(n)) => self.buffer.extend_from_slice(&space[..n]),
        }
        self.gone.clone().map_or(Ok(()), Err)
    }

    /// Writes; false when that failed.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        matches!(tokio::time::timeout(left, write).await, Ok(Ok(())))
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When nothing more comes.
    pub async fn line(&mut self) -> Result<String, Gone> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                let text: String = line.iter().map(|b| char::from(*b)).collect();
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            self.more().await?;
        }
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// When nothing more comes.
    pub async fn exact(&mut self, n: usize) -> Result<Vec<u8>, Gone> {
        while self.buffer.len() < n {
            self.more().await?;
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads what comes until nothing comes any more.
    pub async fn rest(&mut self) -> (Vec<u8>, Gone) {
        loop {
            if let Err(gone) = self.more().await {
                return (std::mem::take(&mut self.buffer), gone);
            }
        }
    }

    async fn fields(&mut self) -> Result<Vec<(String, String)>, Gone> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads the head of a request.
    ///
    /// # Errors
    /// When nothing more comes.
    pub async fn request_head(&mut self) -> Result<Message, Gone> {
        let line = self.line().await?;
        Ok(Message { line, headers: self.fields().await?, ..Message::default() })
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is not whole; what came is in the message.
    pub async fn request_body(&mut self, message: &mut Message) -> Result<(), Gone> {
        let upgrade = message.values("upgrade").next().is_some();
        let framing = match message.length() {
            _ if message.chunked() && !upgrade => Framing::Chunked,
            Some(n) => Framing::Length(n),
            None => Framing::None,
        };
        self.body(message, &framing).await
    }

    /// Reads an answer with the interim ones before it. `bare`: it has no body, whatever it says.
    ///
    /// # Errors
    /// When there is none.
    pub async fn answer(&mut self, bare: bool) -> Result<Message, Gone> {
        let mut interim = Vec::new();
        let mut message = loop {
            let head = self.request_head().await?;
            if !(100..200).contains(&head.status()) || head.status() == 101 {
                break head;
            }
            interim.push((head.line, head.headers));
        };
        message.interim = interim;
        let framing = match message.length() {
            _ if bare || matches!(message.status(), 101 | 204 | 304) => Framing::None,
            _ if message.chunked() => Framing::Chunked,
            Some(n) => Framing::Length(n),
            None => Framing::ToTheEnd,
        };
        if let Err(gone) = self.body(&mut message, &framing).await {
            message.broken = Some(gone.word());
        }
        Ok(message)
    }

    async fn body(&mut self, message: &mut Message, framing: &Framing) -> Result<(), Gone> {
        let outcome = match framing {
            Framing::None => Ok(()),
            Framing::Length(n) => self.exact(*n).await.map(|body| message.body = body),
            Framing::Chunked => self.chunks(message).await,
            Framing::ToTheEnd => match self.rest().await {
                (body, Gone::End) => {
                    message.body = body;
                    Ok(())
                }
                (body, gone) => {
                    message.body = body;
                    Err(gone)
                }
            },
        };
        if outcome.is_err() {
            message.body.append(&mut self.buffer);
        }
        outcome
    }

    async fn chunks(&mut self, message: &mut Message) -> Result<(), Gone> {
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).unwrap_or(0);
            if size == 0 {
                message.trailers = self.fields().await?;
                return Ok(());
            }
            let chunk = self.exact(size).await?;
            message.body.extend(chunk);
            self.line().await?;
        }
    }
}
