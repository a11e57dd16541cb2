//! Where something runs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A place, from large to small. An empty part means unknown; a part below an unknown one is ignored.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Locality {
    /// For example `eu-west-1`.
    pub region: String,
    /// For example `eu-west-1a`.
    pub zone: String,
    /// For example a rack.
    pub subzone: String,
}

impl Locality {
    /// Reads `region/zone/subzone`; missing parts are empty.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// How many parts are the same, from the region on: 0 (another region) to 3 (the same place).
    /// Two unknown regions count as the same place at every level.
    #[must_use]
    pub fn closeness(&self, other: &Self) -> u8 {
        if self.region != other.region {
            0
        } else if self.zone != other.zone {
            1
        } else if self.subzone != other.subzone {
            2
        } else {
            3
        }
    }

    /// True when nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.region.is_empty()
    }
}

impl From<String> for Locality {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl From<Locality> for String {
    fn from(locality: Locality) -> Self {
        locality.to_string()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
