//! What an admin page answers with: a text, or pieces that are made as the client takes them.

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tombolo_controlplane_api::json::Node;

/// About so many bytes of small pieces go out together.
const PIECE: usize = 16 * 1024;

/// A body.
pub(super) enum Body {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece. Between two of them everybody else on the control thread has a turn.
    Pieces { pieces: Box<dyn Iterator<Item = String> + Send>, rested: bool },
}

impl Body {
    /// JSON that is made as it is read.
    pub(super) fn json(node: Node) -> Self {
        Self::Pieces { pieces: Box::new(node.into_text()), rested: true }
    }

    /// Lines, or other small pieces.
    pub(super) fn lines(mut lines: impl Iterator<Item = String> + Send + 'static) -> Self {
        let pieces = std::iter::from_fn(move || {
            let mut out = lines.next()?;
            while out.len() < PIECE
                && let Some(more) = lines.next()
            {
                out.push_str(&more);
            }
            Some(out)
        });
        Self::Pieces { pieces: Box::new(pieces), rested: true }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Pieces { pieces, rested } => {
                if !std::mem::replace(rested, false) {
                    *rested = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                pieces.next().map(Bytes::from)
            }
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[tokio::test]
    async fn nothing_is_made_before_it_is_taken() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let lines = (0..1000).map(move |n| {
            counted.fetch_add(1, Ordering::SeqCst);
            format!("{n:099}\n")
        });
        let mut body = Body::lines(lines);
        assert_eq!(made.load(Ordering::SeqCst), 0);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.len() >= PIECE && made.load(Ordering::SeqCst) < 200, "{}", first.len());
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!((first.len() + rest.len(), made.load(Ordering::SeqCst)), (100_000, 1000));
    }

    #[tokio::test]
    async fn a_text_is_whole() {
        let body = Body::from("text".to_owned());
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(4));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "text");
    }
}
