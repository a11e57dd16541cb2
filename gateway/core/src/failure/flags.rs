//! Owns response flags: the short and long names that access logs show, and a set of them in one word.
//!
//! Never says when a flag is raised. Used by `failure`, `attempt` and the access log.

/// A reason why a response is not the plain answer of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Flag {
    /// LH
    FailedLocalHealthCheck,
    /// UH
    NoHealthyUpstream,
    /// UT
    UpstreamRequestTimeout,
    /// LR
    LocalReset,
    /// UR
    UpstreamRemoteReset,
    /// UF
    UpstreamConnectionFailure,
    /// UC
    UpstreamConnectionTermination,
    /// UO
    UpstreamOverflow,
    /// NR
    NoRouteFound,
    /// DI
    DelayInjected,
    /// FI
    FaultInjected,
    /// RL
    RateLimited,
    /// UAEX
    UnauthorizedExternalService,
    /// RLSE
    RateLimitServiceError,
    /// DC
    DownstreamConnectionTermination,
    /// URX
    UpstreamRetryLimitExceeded,
    /// SI
    StreamIdleTimeout,
    /// IH
    InvalidEnvoyRequestHeaders,
    /// DPE
    DownstreamProtocolError,
    /// UMSDR
    UpstreamMaxStreamDurationReached,
    /// RFCF
    ResponseFromCacheFilter,
    /// NFCF
    NoFilterConfigFound,
    /// DT
    DurationTimeout,
    /// UPE
    UpstreamProtocolError,
    /// NC
    NoClusterFound,
    /// OM
    OverloadManagerTerminated,
    /// DF
    DnsResolutionFailed,
    /// DO
    DropOverload,
    /// DR
    DownstreamRemoteReset,
    /// UDO
    UnconditionalDropOverload,
}

/// Every flag with its short and long name, in the order of `Flag`.
const NAMES: [(Flag, &str, &str); 30] = [
    (Flag::FailedLocalHealthCheck, "LH", "FailedLocalHealthCheck"),
    (Flag::NoHealthyUpstream, "UH", "NoHealthyUpstream"),
    (Flag::UpstreamRequestTimeout, "UT", "UpstreamRequestTimeout"),
    (Flag::LocalReset, "LR", "LocalReset"),
    (Flag::UpstreamRemoteReset, "UR", "UpstreamRemoteReset"),
    (Flag::UpstreamConnectionFailure, "UF", "UpstreamConnectionFailure"),
    (Flag::UpstreamConnectionTermination, "UC", "UpstreamConnectionTermination"),
    (Flag::UpstreamOverflow, "UO", "UpstreamOverflow"),
    (Flag::NoRouteFound, "NR", "NoRouteFound"),
    (Flag::DelayInjected, "DI", "DelayInjected"),
    (Flag::FaultInjected, "FI", "FaultInjected"),
    (Flag::RateLimited, "RL", "RateLimited"),
    (Flag::UnauthorizedExternalService, "UAEX", "UnauthorizedExternalService"),
    (Flag::RateLimitServiceError, "RLSE", "RateLimitServiceError"),
    (Flag::DownstreamConnectionTermination, "DC", "DownstreamConnectionTermination"),
    (Flag::UpstreamRetryLimitExceeded, "URX", "UpstreamRetryLimitExceeded"),
    (Flag::StreamIdleTimeout, "SI", "StreamIdleTimeout"),
    (Flag::InvalidEnvoyRequestHeaders, "IH", "InvalidEnvoyRequestHeaders"),
    (Flag::DownstreamProtocolError, "DPE", "DownstreamProtocolError"),
    (Flag::UpstreamMaxStreamDurationReached, "UMSDR", "UpstreamMaxStreamDurationReached"),
    (Flag::ResponseFromCacheFilter, "RFCF", "ResponseFromCacheFilter"),
    (Flag::NoFilterConfigFound, "NFCF", "NoFilterConfigFound"),
    (Flag::DurationTimeout, "DT", "DurationTimeout"),
    (Flag::UpstreamProtocolError, "UPE", "UpstreamProtocolError"),
    (Flag::NoClusterFound, "NC", "NoClusterFound"),
    (Flag::OverloadManagerTerminated, "OM", "OverloadManagerTerminated"),
    (Flag::DnsResolutionFailed, "DF", "DnsResolutionFailed"),
    (Flag::DropOverload, "DO", "DropOverload"),
    (Flag::DownstreamRemoteReset, "DR", "DownstreamRemoteReset"),
    (Flag::UnconditionalDropOverload, "UDO", "UnconditionalDropOverload"),
];

impl Flag {
    /// Every flag, in order.
    pub fn all() -> impl Iterator<Item = Flag> {
        NAMES.iter().map(|(flag, _, _)| *flag)
    }

    /// `UH`
    #[must_use]
    pub fn short(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// `NoHealthyUpstream`
    #[must_use]
    pub fn long(self) -> &'static str {
        NAMES[self as usize].2
    }

    /// Reads a short name, as access log filters give it.
    #[must_use]
    pub fn parse(short: &str) -> Option<Flag> {
        NAMES.iter().find(|(_, name, _)| *name == short).map(|(flag, _, _)| *flag)
    }
}

/// How many flags one request can collect; far more than ever meet in practice. Later ones are not kept.
const CAPACITY: u8 = 12;

/// A set of flags that remembers in which order they were raised, because logs print them so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags {
    mask: u32,
    len: u8,
    /// Five bits for each flag, the first in the lowest.
    order: u64,
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags { mask: 0, len: 0, order: 0 };

    /// Adds one, unless it is in the set already.
    pub fn insert(&mut self, flag: Flag) {
        if self.contains(flag) || self.len == CAPACITY {
            return;
        }
        self.mask |= 1 << flag as u32;
        self.order |= (flag as u64) << (u32::from(self.len) * 5);
        self.len += 1;
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(self, flag: Flag) -> bool {
        self.mask & (1 << flag as u32) != 0
    }

    /// Whether both sets share a flag.
    #[must_use]
    pub fn intersects(self, other: Flags) -> bool {
        self.mask & other.mask != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The flags in the order in which they were raised.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        (0..u32::from(self.len)).map(move |at| NAMES[(self.order >> (at * 5)) as usize & 31].0)
    }

    /// Adds all of `other` after the own ones.
    pub fn extend(&mut self, other: Flags) {
        other.iter().for_each(|flag| self.insert(flag));
    }

    /// Appends `URX,UF`, or `-` for none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, Flag::short);
    }

    /// Appends the long names, or `-` for none.
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, Flag::long);
    }

    fn write(self, out: &mut Vec<u8>, name: fn(Flag) -> &'static str) {
        if self.is_empty() {
            out.push(b'-');
        }
        for (i, flag) in self.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name(flag).as_bytes());
        }
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut set = Flags::NONE;
        flags.into_iter().for_each(|flag| set.insert(flag));
        set
    }
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, flag) in self.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "," } else { "" }, flag.short())?;
        }
        Ok(())
    }
}
