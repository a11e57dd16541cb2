//! `x-forwarded-client-cert`: what is told about the client's certificate.

use super::append;
use crate::{
    config::{Hcm, Xfcc},
    head::{ConnInfo, PeerCertificate, TlsInfo},
    names::{self, Present},
};
use http::{HeaderMap, HeaderValue};
use std::fmt::Write as _;

pub(super) fn apply(hcm: &Hcm, conn: &ConnInfo, present: Present, headers: &mut HeaderMap) {
    let mutual = conn.tls.as_deref().and_then(|tls| Some((tls, tls.peer.as_ref()?)));
    match (hcm.xfcc, mutual) {
        (Xfcc::AlwaysForwardOnly, _) | (Xfcc::ForwardOnly, Some(_)) => {}
        (Xfcc::Sanitize, _) | (Xfcc::ForwardOnly | Xfcc::AppendForward | Xfcc::SanitizeSet, None) => {
            if present.has(Present::CLIENT_CERT) {
                headers.remove(names::X_FORWARDED_CLIENT_CERT);
            }
        }
        (Xfcc::AppendForward, Some((tls, peer))) => {
            append(headers, names::X_FORWARDED_CLIENT_CERT, element(hcm, tls, peer).as_bytes(), b",");
        }
        (Xfcc::SanitizeSet, Some((tls, peer))) => {
            if let Ok(value) = HeaderValue::try_from(element(hcm, tls, peer)) {
                headers.insert(names::X_FORWARDED_CLIENT_CERT, value);
            }
        }
    }
}

/// One element. Texts that a certificate supplies are quoted where they could be read as syntax.
fn element(hcm: &Hcm, tls: &TlsInfo, peer: &PeerCertificate) -> String {
    let mut out = String::new();
    let mut put = |key: &str, value: &str| {
        let separator = if out.is_empty() { "" } else { ";" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{separator}{key}={}", quoted(value));
    };
    for uri in &tls.local_uris {
        put("By", uri);
    }
    put("Hash", &peer.sha256);
    let details = hcm.xfcc_details;
    if details.cert {
        put("Cert", &format!("\"{}\"", peer.pem));
    }
    if details.chain {
        put("Chain", &format!("\"{}\"", peer.chain_pem));
    }
    if details.subject {
        put("Subject", &format!("\"{}\"", peer.subject.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    if details.uri {
        match &*peer.uris {
            [] => put("URI", ""),
            uris => uris.iter().for_each(|uri| put("URI", uri)),
        }
    }
    if details.dns {
        peer.dns.iter().for_each(|name| put("DNS", name));
    }
    out
}

/// A value that is quoted already stays; one with a separator in it is quoted.
fn quoted(value: &str) -> std::borrow::Cow<'_, str> {
    let done = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    if done
        || !value.contains([',', ';', '=', '"'])
        || value.starts_with("spiffe://") && !value.contains([',', ';', '"'])
    {
        value.into()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")).into()
    }
}
