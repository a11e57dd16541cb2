//! Timers that the requests of a worker lend each other.
//!
//! Owns those that nobody needs at the moment. Setting a timer takes a lock and a place in the runtime's wheel, and most requests are over
//! long before their time. So a timer that is given back stays set, and the next request, whose time is later, takes it as it is: it
//! rings too early, if at all, and is set anew then.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tokio::time::{Sleep, sleep_until};

/// So many are kept; each keeps the memory of the task that it would wake.
const MOST: usize = 64;

/// Timers that nobody needs.
#[derive(Default)]
pub(crate) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

/// A timer for one moment at a time.
pub(crate) struct Timer {
    lender: Rc<Timers>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Not set.
    pub(crate) fn new(lender: &Rc<Timers>) -> Self {
        Self { lender: lender.clone(), sleep: None }
    }

    /// Ready when the moment has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moment: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| {
            let spare = self.lender.0.borrow_mut().pop();
            spare.unwrap_or_else(|| Box::pin(sleep_until(moment.into())))
        });
        if sleep.is_elapsed() || sleep.deadline().into_std() > moment {
            sleep.as_mut().reset(moment.into());
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline().into_std() >= moment {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(moment.into());
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(sleep) = self.sleep.take() {
            let mut spare = self.lender.0.borrow_mut();
            if spare.len() < MOST {
                spare.push(sleep);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};

    async fn until(lender: &Rc<Timers>, after: u64) -> Duration {
        let begun = Instant::now();
        let mut timer = Timer::new(lender);
        poll_fn(|cx| timer.poll(cx, begun + Duration::from_millis(after))).await;
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_lent_timer_rings_at_its_own_moment() {
        let lender = Rc::<Timers>::default();
        // One that is set for soon, one for much later, and one that has rung.
        for (before, rings) in [(10, false), (60_000, false), (1, true)] {
            let mut timer = Timer::new(&lender);
            let moment = Instant::now() + Duration::from_millis(before);
            poll_fn(|cx| match timer.poll(cx, moment) {
                Poll::Pending if rings => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            drop(timer);
            assert_eq!(lender.0.borrow().len(), 1);
            let waited = until(&lender, 30).await;
            assert!(waited >= Duration::from_millis(30) && waited < Duration::from_secs(30), "{waited:?}");
            assert_eq!(lender.0.borrow().len(), 1);
        }
    }

    #[tokio::test]
    async fn no_more_are_kept_than_are_of_use() {
        let lender = Rc::<Timers>::default();
        let mut timers: Vec<Timer> = (0..MOST + 10).map(|_| Timer::new(&lender)).collect();
        let moment = Instant::now() + Duration::from_secs(60);
        poll_fn(|cx| {
            assert!(timers.iter_mut().all(|timer| timer.poll(cx, moment).is_pending()));
            Poll::Ready(())
        })
        .await;
        drop(timers);
        assert_eq!(lender.0.borrow().len(), MOST);
    }
}
