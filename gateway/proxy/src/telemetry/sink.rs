//! Where access log lines go: one writer thread per process, fed through a bounded channel with batches of lines.
//!
//! Owns the files. Workers keep lines in a buffer of their own and hand it over when it is full or old, so that the hot
//! path neither wakes a thread per request nor waits for a disk. When the writer falls behind, batches are dropped and
//! counted.

use ahash::AHashMap;
use std::{
    cell::{Cell, RefCell},
    fs::{File, OpenOptions},
    io::Write,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use tombolo_gateway_core::config::LogSink;

/// Batches waiting for the writer.
const QUEUE: usize = 256;
/// A worker hands its lines over at this size …
const BATCH: usize = 32 * 1024;
/// … or this age.
const AGE: Duration = Duration::from_millis(50);

enum Job {
    Lines(LogSink, Vec<u8>),
    Reopen,
    Stop,
}

/// The process' writer.
pub(crate) struct Writer {
    queue: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// A handle by which a worker sends its lines.
#[derive(Clone)]
pub(crate) struct Feed {
    queue: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("access-log".into()).stack_size(256 * 1024).spawn(move || write(&jobs))?;
        Ok(Self { queue, dropped: Arc::default(), thread: Some(thread) })
    }

    /// A handle for a worker.
    pub(crate) fn feed(&self) -> Feed {
        Feed { queue: self.queue.clone(), dropped: self.dropped.clone() }
    }

    /// Lines that were lost because the writer could not keep up.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is queued before this is still written.
        if self.queue.send(Job::Stop).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Feed {
    /// Files are opened again before the next line (after rotation).
    pub(crate) fn reopen(&self) {
        let _ = self.queue.try_send(Job::Reopen);
    }

    fn send(&self, sink: LogSink, lines: Vec<u8>) {
        let count = lines.iter().filter(|b| **b == b'\n').count() as u64;
        if self.queue.try_send(Job::Lines(sink, lines)).is_err() {
            self.dropped.fetch_add(count.max(1), Ordering::Relaxed);
        }
    }
}

fn write(jobs: &Receiver<Job>) {
    let mut files: AHashMap<Arc<str>, File> = AHashMap::new();
    while let Ok(job) = jobs.recv() {
        let (sink, lines) = match job {
            Job::Lines(sink, lines) => (sink, lines),
            Job::Reopen => {
                files.clear();
                continue;
            }
            Job::Stop => return,
        };
        let outcome = match &sink {
            LogSink::Stdout => std::io::stdout().lock().write_all(&lines),
            LogSink::Stderr => std::io::stderr().lock().write_all(&lines),
            LogSink::File(path) => append(&mut files, path, &lines),
        };
        if let Err(error) = outcome {
            tracing::warn!(?sink, %error, "access log lines lost");
        }
    }
}

fn append(files: &mut AHashMap<Arc<str>, File>, path: &Arc<str>, lines: &[u8]) -> std::io::Result<()> {
    if !files.contains_key(path) {
        files.insert(path.clone(), OpenOptions::new().create(true).append(true).open(&**path)?);
    }
    match files.get_mut(path) {
        Some(file) => file.write_all(lines),
        None => Ok(()),
    }
}

/// The lines of one worker that are not handed over yet.
pub(crate) struct Lines {
    feed: Feed,
    waiting: RefCell<Vec<(LogSink, Vec<u8>)>>,
    armed: Cell<bool>,
}

impl Lines {
    /// An empty buffer.
    pub(crate) fn new(feed: Feed) -> Rc<Self> {
        Rc::new(Self { feed, waiting: RefCell::default(), armed: Cell::new(false) })
    }

    /// Lets `render` append a line to the buffer of a sink.
    pub(crate) fn line(self: &Rc<Self>, sink: &LogSink, render: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.waiting.borrow_mut();
        let at = match waiting.iter().position(|(s, _)| s == sink) {
            Some(at) => at,
            None => {
                waiting.push((sink.clone(), Vec::new()));
                waiting.len() - 1
            }
        };
        let Some((_, buffer)) = waiting.get_mut(at) else { return };
        render(buffer);
        if buffer.len() >= BATCH {
            let full = std::mem::take(buffer);
            self.feed.send(sink.clone(), full);
        } else if !self.armed.replace(true) {
            let this = Rc::downgrade(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(AGE).await;
                if let Some(this) = this.upgrade() {
                    this.flush();
                }
            });
        }
    }

    /// Hands everything over.
    pub(crate) fn flush(&self) {
        self.armed.set(false);
        for (sink, buffer) in self.waiting.borrow_mut().iter_mut() {
            if !buffer.is_empty() {
                self.feed.send(sink.clone(), std::mem::take(buffer));
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "local")]
    async fn lines_arrive_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path: Arc<str> = dir.path().join("log").to_str().unwrap().into();
        let writer = Writer::start().unwrap();
        let lines = Lines::new(writer.feed());
        for n in 0..10_000 {
            lines.line(&LogSink::File(path.clone()), |out| writeln!(out, "line {n}").unwrap());
        }
        drop(lines);
        drop(writer);
        let text = std::fs::read_to_string(&*path).unwrap();
        assert_eq!(text.lines().count(), 10_000);
        assert_eq!(text.lines().last(), Some("line 9999"));
    }
}
