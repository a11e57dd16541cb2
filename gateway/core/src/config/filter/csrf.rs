//! Requests that change something only from pages of the same origin, as configured.

use crate::config::{Fraction, StringMatcher};

/// Cross-site request forgery: whose pages may send requests that change something.
#[derive(Debug, Clone, PartialEq)]
pub struct Csrf {
    /// How often requests are refused.
    pub enabled: Fraction,
    /// Origins that are allowed beside the target's own.
    pub origins: Box<[StringMatcher]>,
}
