//! Who may do what: judges rules by what is known of a request, or of a connection alone.

use crate::{
    config::{AccessAction, AccessPolicy, AccessRules, Condition, HeaderMatch, Metadata, StringMatcher},
    head::{ConnInfo, Head},
    route::header_matches,
};
use std::net::{IpAddr, SocketAddr};

/// What rules are judged by.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The connection.
    pub conn: &'a ConnInfo,
    /// The client, also behind trusted proxies.
    pub client: Option<SocketAddr>,
    /// The request, where there is one.
    pub head: Option<&'a Head>,
    /// What filters said of it.
    pub metadata: &'a Metadata,
}

/// Whether rules allow something; otherwise the details of the refusal, which name the policy.
///
/// # Errors
/// The response code details.
pub fn allowed(rules: &AccessRules, subject: Subject<'_>) -> Result<(), String> {
    let Some(rules) = &rules.rules else { return Ok(()) };
    let found = rules.policies.iter().find(|policy| policy.fits(subject));
    match (rules.action, found) {
        (AccessAction::Log, _) | (AccessAction::Allow, Some(_)) | (AccessAction::Deny, None) => Ok(()),
        (AccessAction::Allow, None) => Err(details("none")),
        (AccessAction::Deny, Some(policy)) => Err(details(&policy.name)),
    }
}

fn details(policy: &str) -> String {
    let name: String = policy.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
    format!("rbac_access_denied_matched_policy[{name}]")
}

impl AccessPolicy {
    fn fits(&self, subject: Subject<'_>) -> bool {
        self.permissions.iter().any(|one| one.holds(subject)) && self.principals.iter().any(|one| one.holds(subject))
    }
}

impl Condition {
    fn holds(&self, subject: Subject<'_>) -> bool {
        let Subject { conn, client, head, metadata } = subject;
        let ip = |address: Option<SocketAddr>| address.map(|address| address.ip());
        let within = |range: &crate::config::Cidr, ip: Option<IpAddr>| ip.is_some_and(|ip| range.contains(&ip));
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(subject)),
            Self::One(some) => some.iter().any(|one| one.holds(subject)),
            Self::Not(one) => !one.holds(subject),
            Self::Is(truth) => *truth,
            Self::Header(matcher) => match head {
                Some(head) => header_matches(matcher, head),
                // A connection has no headers: what must be absent is.
                None => matches!(matcher.kind, HeaderMatch::Present(present) if present == matcher.invert),
            },
            Self::Path(matcher) => path(head).is_some_and(|path| matcher.fits(path.as_bytes())),
            Self::Template(pattern) => path(head).is_some_and(|path| pattern.matches_whole(path.as_bytes())),
            Self::DestinationIp(range) => within(range, ip(conn.local)),
            Self::DestinationPort(from, to) => {
                conn.local.is_some_and(|local| (*from..*to).contains(&u32::from(local.port())))
            }
            Self::ServerName(matcher) => matcher.fits(conn.sni.as_bytes()),
            Self::SourceIp(range) => within(range, ip(conn.remote)),
            Self::DirectRemoteIp(range) => within(range, ip(conn.direct_remote.or(conn.remote))),
            Self::RemoteIp(range) => within(range, ip(client.or(conn.remote))),
            Self::Authenticated(wanted) => authenticated(conn, wanted.as_ref()),
            Self::Metadata(matcher) => matcher.fits(metadata),
        }
    }
}

/// Path without query and fragment.
fn path(head: Option<&Head>) -> Option<&str> {
    head?.path.split(['?', '#']).next().filter(|path| !path.is_empty())
}

fn authenticated(conn: &ConnInfo, wanted: Option<&StringMatcher>) -> bool {
    let Some(peer) = conn.tls.as_ref().and_then(|tls| tls.peer.as_ref()).filter(|peer| peer.verified) else {
        return false;
    };
    let Some(wanted) = wanted else { return true };
    let mut names = peer.uris.iter().chain(&peer.dns).peekable();
    if names.peek().is_none() {
        return wanted.fits(peer.subject.as_bytes());
    }
    names.any(|name| wanted.fits(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{HeaderMatcher, Rules, StringMatch},
        head::{Name, PeerCertificate, TlsInfo},
        testing::{conn, head},
    };

    fn exact(text: &str) -> StringMatcher {
        StringMatcher { kind: StringMatch::Exact(text.into()), ignore_case: false }
    }

    fn prefix(text: &str) -> StringMatcher {
        StringMatcher { kind: StringMatch::Prefix(text.into()), ignore_case: false }
    }

    fn rules(action: AccessAction, permission: Condition, principal: Condition) -> AccessRules {
        let policy =
            AccessPolicy { name: "my policy".into(), permissions: [permission].into(), principals: [principal].into() };
        AccessRules { rules: Some(Rules { action, policies: [policy].into() }) }
    }

    fn mutual(uri: &str, verified: bool) -> ConnInfo {
        let peer = PeerCertificate { verified, uris: vec![uri.into()], ..PeerCertificate::default() };
        ConnInfo { tls: Some(Box::new(TlsInfo { peer: Some(peer), ..TlsInfo::default() })), ..conn() }
    }

    fn holds(condition: Condition, conn: &ConnInfo, path: &str) -> bool {
        condition.holds(Subject {
            conn,
            client: Some("9.9.9.9:0".parse().unwrap()),
            head: Some(&head(path, &[("x-a", "1")])),
            metadata: &Metadata::default(),
        })
    }

    #[test]
    fn the_action_says_what_a_fit_means() {
        let subject_head = head("/", &[]);
        let (conn, none) = (conn(), Metadata::default());
        let subject = Subject { conn: &conn, client: None, head: Some(&subject_head), metadata: &none };
        let judge = |action, fits| allowed(&rules(action, Condition::Is(true), Condition::Is(fits)), subject);
        assert_eq!(judge(AccessAction::Allow, true), Ok(()));
        assert_eq!(judge(AccessAction::Allow, false), Err("rbac_access_denied_matched_policy[none]".into()));
        assert_eq!(judge(AccessAction::Deny, true), Err("rbac_access_denied_matched_policy[my_policy]".into()));
        assert_eq!(judge(AccessAction::Deny, false), Ok(()));
        assert_eq!(judge(AccessAction::Log, false), Ok(()));
        assert_eq!(allowed(&AccessRules { rules: None }, subject), Ok(()));
    }

    #[test]
    fn conditions_look_at_request_and_connection() {
        let here = conn();
        let cidr = |text: &str| text.parse().unwrap();
        assert!(holds(Condition::Path(exact("/a")), &here, "/a?q"));
        assert!(!holds(Condition::Path(exact("/a")), &here, "/a/"));
        assert!(holds(Condition::DestinationPort(80, 81), &here, "/"));
        assert!(!holds(Condition::DestinationPort(81, 90), &here, "/"));
        assert!(holds(Condition::SourceIp(cidr("127.0.0.0/8")), &here, "/"));
        assert!(holds(Condition::RemoteIp(cidr("9.0.0.0/8")), &here, "/"));
        assert!(!holds(Condition::SourceIp(cidr("9.0.0.0/8")), &here, "/"));
        let header = HeaderMatcher {
            name: Name::parse("x-a").unwrap(),
            kind: HeaderMatch::Text(exact("1")),
            invert: false,
            missing_is_empty: false,
        };
        assert!(holds(Condition::Header(header.clone()), &here, "/"));
        let none = Metadata::default();
        let subject = Subject { conn: &here, client: None, head: None, metadata: &none };
        assert!(!Condition::Header(header).holds(subject));
        let both = |a, b| Condition::All([Condition::Is(a), Condition::Not(Box::new(Condition::Is(b)))].into());
        assert!(holds(both(true, false), &here, "/") && !holds(both(true, true), &here, "/"));
    }

    #[test]
    fn names_count_only_when_verified() {
        let wanted = || Condition::Authenticated(Some(prefix("spiffe://td/ns/a/")));
        assert!(holds(wanted(), &mutual("spiffe://td/ns/a/sa/b", true), "/"));
        assert!(!holds(wanted(), &mutual("spiffe://td/ns/b/sa/b", true), "/"));
        assert!(!holds(wanted(), &mutual("spiffe://td/ns/a/sa/b", false), "/"));
        assert!(holds(Condition::Authenticated(None), &mutual("spiffe://x", true), "/"));
        assert!(!holds(Condition::Authenticated(None), &conn(), "/"));
    }
}
