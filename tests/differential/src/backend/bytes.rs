//! A backend that takes bytes: gives them back in upper case, says how the other side ended, and ends after it.

use super::{Connection, brief, note};
use crate::script::End;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Serves one connection.
pub(super) async fn serve(mut connection: Connection) {
    let (act, seen) = connection.stage.take(connection.backend, None);
    if act.end == End::ShutAtOnce {
        return;
    }
    if let Some(bytes) = &act.raw {
        let _ = connection.stream.write_all(bytes).await;
        if act.end == End::Close {
            let _ = connection.stream.shutdown().await;
        }
    }
    let (mut received, mut space) = (Vec::new(), vec![0; 65536]);
    let ended = loop {
        if act.body_delay > 0 {
            tokio::time::sleep(Duration::from_millis(act.body_delay)).await;
        }
        match connection.stream.read(&mut space).await {
            Ok(0) => break "end",
            Err(_) => break "reset",
            Ok(n) => {
                received.extend_from_slice(&space[..n]);
                note(&seen, "received", json!(brief(&received)));
                if act.end == End::Reset {
                    note(&seen, "ended", json!("by us"));
                    return connection.reset();
                }
                let answer = space[..n].to_ascii_uppercase();
                if act.end != End::Close && connection.stream.write_all(&answer).await.is_err() {
                    break "reset";
                }
            }
        }
    };
    note(&seen, "ended", json!(ended));
    if act.delay > 0 {
        tokio::time::sleep(Duration::from_millis(act.delay)).await;
    }
    let _ = connection.stream.write_all(b"<end>").await;
    let _ = connection.stream.shutdown().await;
}
