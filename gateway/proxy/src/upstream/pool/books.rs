//! Which connections a pool has.

use super::{Conn, Pool, Watch};
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};
use tombolo_gateway_core::breaker::Permit;

/// Removes entries of a list.
pub(super) fn taken_out<L, T>(list: &RefCell<L>, goes: impl Fn(&T) -> bool) -> Vec<T>
where
    L: Default + IntoIterator<Item = T> + FromIterator<T>,
{
    let (gone, stay): (Vec<T>, Vec<T>) = list.take().into_iter().partition(goes);
    *list.borrow_mut() = stay.into_iter().collect();
    gone
}

/// Takes a connection out of the books when it ends.
pub(crate) struct Books {
    pub(super) pool: Weak<Pool>,
    pub(super) watch: Rc<dyn Watch>,
    pub(super) conn: Rc<Conn>,
    pub(super) permit: Option<Permit>,
}

impl Drop for Books {
    fn drop(&mut self) {
        self.conn.retired.set(true);
        self.watch.closed();
        self.permit = None;
        if let Some(pool) = self.pool.upgrade() {
            pool.open.set(pool.open.get().saturating_sub(1));
            if !pool.waiting.borrow().is_empty() {
                pool.connect_if_needed();
            }
        }
    }
}
