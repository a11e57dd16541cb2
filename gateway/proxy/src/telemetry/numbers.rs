//! Numbers that stand for the texts of labels, in one worker.
//!
//! Owns texts, their numbers, and which clusters use which: with the last of these a text is forgotten, so that clusters that
//! come and go leave room. A number is never given twice; whoever keeps one asks by the epoch whether it still stands for
//! something.

use ahash::AHashMap;
use smallvec::SmallVec;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Texts at most.
pub(super) const MOST: usize = 8192;
/// Numbers below stand for what is never forgotten.
const FIXED: u32 = 4;

/// Numbers whose user is gone.
type Left = Rc<RefCell<Vec<u32>>>;

/// See the module.
#[derive(Default)]
pub(super) struct Numbers {
    texts: RefCell<AHashMap<u32, Rc<str>>>,
    numbers: RefCell<AHashMap<Rc<str>, u32>>,
    users: RefCell<AHashMap<u32, u32>>,
    left: Left,
    next: Cell<u32>,
    epoch: Cell<u32>,
}

/// What one user uses, until it is dropped.
#[derive(Default)]
pub(crate) struct Uses {
    numbers: RefCell<SmallVec<[u32; 4]>>,
    left: RefCell<Left>,
}

impl Drop for Uses {
    fn drop(&mut self) {
        self.left.borrow().borrow_mut().append(&mut self.numbers.take().into_vec());
    }
}

impl Numbers {
    /// The number of a text; `otherwise` when there is no room for another.
    pub(super) fn number(&self, text: &str, otherwise: u32) -> u32 {
        if let Some(number) = self.known(text) {
            return number;
        }
        let mut texts = self.texts.borrow_mut();
        if texts.len() >= MOST {
            return otherwise;
        }
        let (shared, number) = (Rc::<str>::from(text), self.next.get());
        self.next.set(number.wrapping_add(1));
        texts.insert(number, shared.clone());
        self.numbers.borrow_mut().insert(shared, number);
        number
    }

    /// The number that a text has already.
    pub(super) fn known(&self, text: &str) -> Option<u32> {
        self.numbers.borrow().get(text).copied()
    }

    pub(super) fn text(&self, number: u32) -> Rc<str> {
        self.texts.borrow().get(&number).cloned().unwrap_or_else(|| Rc::from(""))
    }

    pub(super) fn len(&self) -> usize {
        self.texts.borrow().len()
    }

    /// Rises whenever numbers are forgotten.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    /// Keeps a number for as long as its user is there.
    pub(super) fn keep(&self, number: u32, by: &Uses) {
        let mut numbers = by.numbers.borrow_mut();
        if number < FIXED || numbers.contains(&number) {
            return;
        }
        numbers.push(number);
        if numbers.len() == 1 {
            *by.left.borrow_mut() = self.left.clone();
        }
        *self.users.borrow_mut().entry(number).or_default() += 1;
    }

    /// Forgets what nobody uses any more, and says what that was.
    pub(super) fn forget(&self) -> Vec<u32> {
        if self.left.borrow().is_empty() {
            return Vec::new();
        }
        let (mut left, mut users) = (self.left.take(), self.users.borrow_mut());
        left.retain(|number| {
            let Some(count) = users.get_mut(number) else { return false };
            *count = count.saturating_sub(1);
            *count == 0 && users.remove(number).is_some()
        });
        let (mut texts, mut numbers) = (self.texts.borrow_mut(), self.numbers.borrow_mut());
        for text in left.iter().filter_map(|number| texts.remove(number)) {
            numbers.remove(&text);
        }
        if !left.is_empty() {
            self.epoch.set(self.epoch.get().wrapping_add(1));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Numbers {
        let numbers = Numbers::default();
        for fixed in ["a", "b", "c", "d"] {
            numbers.number(fixed, 9);
        }
        numbers
    }

    #[test]
    fn a_text_goes_with_the_last_that_uses_it_and_its_number_never_comes_back() {
        let numbers = some();
        let (one, two) = (Uses::default(), Uses::default());
        let (shared, own) = (numbers.number("shared", 0), numbers.number("own", 0));
        for _ in 0..2 {
            numbers.keep(shared, &one);
            numbers.keep(own, &one);
            numbers.keep(shared, &two);
            numbers.keep(0, &two);
        }
        assert_eq!((numbers.forget(), numbers.epoch()), (vec![], 0));
        drop(one);
        assert_eq!((numbers.forget(), numbers.epoch()), (vec![own], 1));
        assert_eq!((numbers.known("own"), numbers.known("shared")), (None, Some(shared)));
        drop(two);
        assert_eq!((numbers.forget(), numbers.len()), (vec![shared], 4), "what is fixed stays");
        assert!(numbers.number("own", 0) > own);
    }

    #[test]
    fn there_is_room_again() {
        let numbers = some();
        for n in 0..MOST {
            let user = Uses::default();
            numbers.keep(numbers.number(&n.to_string(), 1), &user);
        }
        assert_eq!(numbers.number("next", 1), 1, "nobody looked yet");
        numbers.forget();
        assert!(numbers.number("next", 1) > 1);
    }
}
