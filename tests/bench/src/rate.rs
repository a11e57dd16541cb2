//! Open-loop load: requests at random moments, whether or not earlier ones were answered.
//!
//! A closed loop hides a slow proxy's queue, because it stops asking while it waits. Here the moments are drawn in advance
//! (exponential gaps), and a request that has to wait for a free connection has waited since its moment.

use crate::report::Latencies;
use anyhow::{Context as _, Result, bail};
use std::{
    cell::RefCell,
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, mpsc},
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: tombolo-bench\r\n\r\n";
/// Answers that are still out after the last moment are waited for this long.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Work {
    due: RefCell<VecDeque<Instant>>,
    arrived: Notify,
    done: RefCell<(Latencies, usize)>,
}

/// Sends and reports.
pub(crate) async fn run(peer: SocketAddr, connections: usize, rate: u32, seconds: u64) -> Result<()> {
    let work = Rc::new(Work::default());
    for _ in 0..connections {
        let stream = TcpStream::connect(peer).await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(connection(stream, work.clone()));
    }
    let moments = moments(f64::from(rate), Duration::from_secs(seconds));
    let begun = Instant::now();
    let asked = moments.len();
    let (give, mut take) = mpsc::unbounded_channel();
    let pacer = std::thread::spawn(move || pace(begun, &moments, &give));
    while let Some(moment) = take.recv().await {
        work.due.borrow_mut().push_back(moment);
        work.arrived.notify_one();
    }
    if pacer.join().is_err() {
        bail!("the pacing thread ended early");
    }
    let (wall, limit) = (begun.elapsed(), Instant::now() + PATIENCE);
    while work.done.borrow().0.len() + work.done.borrow().1 < asked && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (latencies, failed) = work.done.take();
    let lost = asked - latencies.len() - failed;
    println!("{}", latencies.report(failed + lost, wall));
    Ok(())
}

/// Moments with exponential gaps.
fn moments(rate: f64, length: Duration) -> Vec<Duration> {
    let mut at = 0.0;
    let mut moments = Vec::new();
    loop {
        let uniform: f64 = rand::random::<f64>().max(f64::MIN_POSITIVE);
        at -= uniform.ln() / rate;
        if at >= length.as_secs_f64() {
            return moments;
        }
        moments.push(Duration::from_secs_f64(at));
    }
}

/// Tells each moment when it comes, from a thread of its own: the runtime's timers are a millisecond wide.
fn pace(begun: Instant, moments: &[Duration], give: &mpsc::UnboundedSender<Instant>) {
    // The kernel otherwise bundles wake-ups within 50 microseconds. Without it the load is only less even.
    let _ = nix::sys::prctl::set_timerslack(1);
    for moment in moments {
        let moment = begun + *moment;
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        if give.send(moment).is_err() {
            return;
        }
    }
}

async fn connection(mut stream: TcpStream, work: Rc<Work>) {
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let next = work.due.borrow_mut().pop_front();
        let Some(moment) = next else {
            work.arrived.notified().await;
            continue;
        };
        match exchange(&mut stream, &mut buffer).await {
            Ok(()) => work.done.borrow_mut().0.add(moment.elapsed()),
            Err(_) => {
                work.done.borrow_mut().1 += 1;
                return;
            }
        }
    }
}

/// One request and its answer, which must be 200 with a `content-length`.
async fn exchange(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    stream.write_all(REQUEST).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("closed");
        }
        if let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
            if !text.starts_with("http/1.1 200") {
                bail!("refused");
            }
            let length = text.split("\r\n").find_map(|l| l.strip_prefix("content-length:")).context("no length")?;
            let whole = head + 4 + length.trim().parse::<usize>()?;
            while buffer.len() < whole {
                if stream.read_buf(buffer).await? == 0 {
                    bail!("cut short");
                }
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_at_the_mean_rate_and_in_order() {
        let moments = moments(1000.0, Duration::from_secs(20));
        assert!((18_500..21_500).contains(&moments.len()), "{}", moments.len());
        assert!(moments.is_sorted());
    }
}
