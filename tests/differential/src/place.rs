//! Where things are: each side has a loopback address of its own, so that ports are the same on both and never taken. Owns
//! the words that stand for places in resources and requests, and turns places back into words in what was seen.

use regex::Regex;
use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf, sync::OnceLock};

/// The first port of the first scenario.
const FIRST: u16 = 10_000;
/// Ports of one scenario.
const SPAN: u16 = 20;
/// Of these, backends have the last.
const BACKENDS: u16 = 10;
/// A backend that nobody stands for.
pub const DEAD: u16 = 9;

/// The places of one scenario on one side.
#[derive(Debug, Clone)]
pub struct Place {
    /// Loopback address of the side.
    pub ip: String,
    /// Number of the scenario.
    pub number: u16,
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Folder of the side, for logs and Unix sockets.
    pub folder: PathBuf,
}

impl Place {
    /// A port by its number in the scenario.
    fn port(&self, offset: u16) -> u16 {
        FIRST + self.number * SPAN + offset
    }

    /// Where a listener of the proxy is.
    #[must_use]
    pub fn listener(&self, n: u16) -> SocketAddr {
        SocketAddr::new(self.ip.parse().expect("a side has an address"), self.port(n))
    }

    /// Where a backend is.
    #[must_use]
    pub fn backend(&self, n: u16) -> SocketAddr {
        self.listener(BACKENDS + n)
    }

    /// The access log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.scenario))
    }

    /// A Unix socket.
    #[must_use]
    pub fn socket(&self, n: u16) -> PathBuf {
        self.folder.join(format!("{}-{n}.sock", self.scenario))
    }

    /// Puts places for words: `$ip`, `$l0` (listener), `$b0` (backend), `$u0` (Unix socket), `$dead`, `$log`, `$s` (scenario).
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        static WORD: OnceLock<Regex> = OnceLock::new();
        let word = WORD.get_or_init(|| Regex::new(r"\$(ip|dead|log|s\b|[lbu][0-9])").expect("a valid expression"));
        let put = |found: &regex::Captures<'_>| {
            let (kind, number) = found[1].split_at(1);
            match (&found[1], kind, number.parse()) {
                ("ip", ..) => self.ip.clone(),
                ("dead", ..) => self.backend(DEAD).port().to_string(),
                ("log", ..) => self.log().display().to_string(),
                (_, "l", Ok(n)) => self.listener(n).port().to_string(),
                (_, "b", Ok(n)) => self.backend(n).port().to_string(),
                (_, "u", Ok(n)) => self.socket(n).display().to_string(),
                _ => self.scenario.to_owned(),
            }
        };
        word.replace_all(text, put).into_owned()
    }

    /// Fills every text of a JSON value.
    #[must_use]
    pub fn fill_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.fill_json(item)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(key, value)| (self.fill(key), self.fill_json(value))).collect())
            }
            other => other.clone(),
        }
    }

    /// What was seen, with words for what differs between two runs of the same thing.
    #[must_use]
    pub fn plain(&self, text: &str) -> String {
        static SHAPES: OnceLock<[(Regex, &str); 5]> = OnceLock::new();
        let shapes = SHAPES.get_or_init(|| {
            [
                ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
                (r"127\.0\.0\.1:[0-9]+", "127.0.0.1:<port>"),
                (r"\b[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} 20[0-9]{2} [0-9:]{8} GMT", "<date>"),
                (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "<time>"),
                ("\"[0-9a-f]{16}\"", "\"<hash>\""),
            ]
            .map(|(shape, word)| (Regex::new(shape).expect("a valid expression"), word))
        });
        let folder = self.folder.display().to_string();
        let text = text.replace(&self.ip, "<ip>").replace(&folder, "<folder>");
        shapes.iter().fold(text, |text, (shape, word)| shape.replace_all(&text, *word).into_owned())
    }

    /// A header as it is compared.
    #[must_use]
    pub fn plain_header(&self, name: &str, value: &str) -> (String, String) {
        let name = name.to_ascii_lowercase();
        let value = match (name.as_str(), value.parse::<u64>()) {
            ("x-envoy-upstream-service-time", Ok(_)) => "<ms>".to_owned(),
            // What is left of a deadline, as near as two runs agree.
            ("x-envoy-expected-rq-timeout-ms" | "grpc-timeout", Ok(n)) => format!("about {}", (n + 250) / 500 * 500),
            _ => self.plain(value),
        };
        (name, value)
    }
}
