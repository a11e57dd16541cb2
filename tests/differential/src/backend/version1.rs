//! A backend that speaks HTTP/1.1, byte by byte as the script says.

use super::{Connection, brief, note};
use crate::{
    http1::{Message, Wire},
    script::{Act, End, Fields},
};
use serde_json::json;
use std::time::Duration;

/// Serves one connection.
pub(super) async fn serve(mut connection: Connection) {
    let stream = std::mem::replace(&mut connection.stream, Box::new(tokio::io::empty()));
    let mut wire = Wire::new(stream, Duration::from_secs(60));
    while let Ok(mut request) = wire.request_head().await {
        if request.line.is_empty() {
            continue;
        }
        if super::health::version1(&mut wire, &connection, &request).await.is_some() {
            continue;
        }
        let (act, seen) = connection.stage.take(connection.backend, request.values("x-case").next());
        seen.lock().expect("nobody panics with it").extend(connection.facts.clone());
        note(&seen, "line", json!(request.line));
        note(&seen, "headers", json!(request.headers));
        if request.values("expect").next().is_some() && !act.no_continue {
            wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let whole = wire.request_body(&mut request).await;
        note(&seen, "body", json!(brief(&request.body)));
        note(&seen, "trailers", json!(request.trailers));
        if let Err(gone) = whole {
            note(&seen, "broken", json!(gone.word()));
            return;
        }
        if !answer(&mut wire, &connection, &request, &act).await {
            break;
        }
    }
}

/// Answers; false when the connection ends with it.
async fn answer(wire: &mut Wire, connection: &Connection, request: &Message, act: &Act) -> bool {
    tokio::time::sleep(Duration::from_millis(act.delay)).await;
    match act.end {
        End::Reset => {
            if let Some(socket) = &connection.socket {
                let _ = socket.set_linger(Some(Duration::ZERO));
            }
            return false;
        }
        End::Shut => return false,
        _ => {}
    }
    if let Some(bytes) = &act.raw {
        wire.write(bytes).await;
        if !bytes.is_empty() {
            connection.stage.until_it_has_some().await;
        }
        return act.end == End::Keep && bytes.is_empty();
    }
    for (status, fields) in &act.interim {
        wire.write(head(&format!("HTTP/1.1 {status} Interim"), fields).as_bytes()).await;
    }
    let method = request.line.split(' ').next().unwrap_or_default();
    let upgrade = request.values("upgrade").next();
    if (upgrade.is_some() || method == "CONNECT") && !act.no_upgrade {
        let start = match upgrade {
            Some(to) => format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {to}\r\n\r\n"),
            None => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
        };
        wire.write(start.as_bytes()).await;
        shout(wire).await;
        return false;
    }
    send(wire, connection, method, act).await
}

/// Sends an answer as the script says; false when the connection ends with it.
async fn send(wire: &mut Wire, connection: &Connection, method: &str, act: &Act) -> bool {
    let status = act.status.unwrap_or(200);
    let name = format!("b{}", connection.backend).into_bytes();
    let body = act.body.clone().unwrap_or(name);
    let mut lines: Fields = act.headers.clone();
    let length = body.len().to_string();
    let mut start = format!("HTTP/1.1 {status} Scripted");
    let bare = matches!(status, 204 | 304);
    if !act.trailers.is_empty() {
        lines.push(("transfer-encoding", "chunked"));
    } else if !bare && !lines.iter().any(|(n, _)| *n == "content-length") {
        start.push_str(&format!("\r\ncontent-length: {length}"));
    }
    if act.end == End::Close {
        lines.push(("connection", "close"));
    }
    wire.write(head(&start, &lines).as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(act.body_delay)).await;
    if !bare && method != "HEAD" {
        let sent = if act.end == End::ResetInBody { &body[..body.len() / 2] } else { &body[..] };
        if act.trailers.is_empty() {
            wire.write(sent).await;
        } else {
            wire.write(format!("{:x}\r\n", sent.len()).as_bytes()).await;
            wire.write(sent).await;
            wire.write(head("\r\n0", &act.trailers).as_bytes()).await;
        }
    }
    if act.end == End::ResetInBody {
        tokio::time::sleep(Duration::from_millis(30)).await;
        connection.stage.until_it_has_some().await;
        if let Some(socket) = &connection.socket {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
    act.end == End::Keep
}

fn head(start: &str, fields: &Fields) -> String {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{start}\r\n{lines}\r\n")
}

/// Gives bytes back in upper case until they end.
async fn shout(wire: &mut Wire) {
    loop {
        let bytes = std::mem::take(&mut wire.buffer).to_ascii_uppercase();
        if !bytes.is_empty() && !wire.write(&bytes).await {
            return;
        }
        if wire.more().await.is_err() {
            wire.write(b"<end>").await;
            return;
        }
    }
}
