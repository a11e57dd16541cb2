//! Owns which texts with operators (`%REQ(x-a)%`) a proxy takes, as values of headers and as lines of the access log. Never
//! renders one.
//!
//! A proxy refuses all routes or listeners of a resource because of one operator that it does not know, so such a text is
//! refused where it is written. The lists hold what our own gateway renders, and must follow it.

use crate::istio::is_header_name;

/// Operators that take nothing in parentheses.
const PLAIN: [&str; 78] = [
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_ALPN",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "FILTER_CHAIN_NAME",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "PROTOCOL",
    "REQUEST_DURATION",
    "REQUEST_TX_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_TX_DURATION",
    "ROUTE_NAME",
    "STREAM_ID",
    "TRACE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
    "VIRTUAL_HOST_NAME",
];

/// What an operator stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Log,
}

/// The value of a header.
pub(crate) fn header(text: &str) -> Result<(), String> {
    check(text, Place::Header)
}

/// A line of the access log.
pub(crate) fn log_line(text: &str) -> Result<(), String> {
    check(text, Place::Log)
}

fn check(text: &str, place: Place) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.strip_prefix('%') {
            Some(after) => after,
            None => operator(after, place).map_err(|reason| format!("{reason}; write %% for a percent sign"))?,
        };
    }
    Ok(())
}

/// `NAME`, `NAME(ARGUMENT)`, either with `:LENGTH`, up to the closing percent sign. What follows is given back.
fn operator(text: &str, place: Place) -> Result<&str, String> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (found, after) =
            inside.split_once(')').ok_or_else(|| format!("the parenthesis of %{name}( is not closed"))?;
        argument = Some(found);
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(':') {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (length, after) = after.split_at(digits);
        if length.parse::<u32>().is_err() {
            return Err(format!("%{name}: has no length after the colon"));
        }
        rest = after;
    }
    let Some(after) = rest.strip_prefix('%') else {
        return Err(format!("a percent sign begins an operator, and \"%{name}\" is not one that is closed by another"));
    };
    let known = known(name, argument, place);
    let kind = if place == Place::Header { "header values" } else { "access logs" };
    known.map(|()| after).map_err(|reason| reason.unwrap_or_else(|| format!("{kind} have no operator %{name}%")))
}

/// Fails with the reason, or with nothing when there is no such operator.
fn known(name: &str, given: Option<&str>, place: Place) -> Result<(), Option<String>> {
    let argument = given.filter(|text| !text.is_empty());
    let need = || argument.ok_or_else(|| Some(format!("%{name}% needs an argument in parentheses")));
    let may = |fits: bool| match fits {
        true => Ok(()),
        false => Err(Some(format!("%{name}({})% has an argument that is not possible", argument.unwrap_or_default()))),
    };
    let header = || Ok::<bool, Option<String>>(headers(need()?, |name| PSEUDO.contains(&name) || plain_header(name)));
    match name {
        "REQ" | "REQUEST_HEADER" => may(header()?),
        // In Envoy an extension, which only access logs name.
        "REQ_WITHOUT_QUERY" if place == Place::Log => may(header()?),
        "RESP" | "RESPONSE_HEADER" | "TRAILER" | "RESPONSE_TRAILER" => may(headers(need()?, plain_header)),
        "START_TIME" | "EMIT_TIME" => may(argument.is_none_or(time)),
        "COMMON_DURATION" => may(common_duration(need()?)),
        "GRPC_STATUS" => may(matches!(argument, None | Some("CAMEL_STRING" | "SNAKE_STRING" | "NUMBER"))),
        "RESPONSE_CODE_DETAILS" => may(matches!(argument, None | Some("ALLOW_WHITESPACES"))),
        "QUERY_PARAMS" => may(matches!(argument, None | Some("ORIG" | "DECODED"))),
        "PATH" => may(argument.is_none_or(|text| two_words(text, &["WQ", "NQ"], &["ORIG", "PATH", "ORIG_OR_PATH"]))),
        "REQUESTED_SERVER_NAME" => may(argument.is_none_or(|text| {
            two_words(text, &["SNI_ONLY", "SNI_FIRST", "HOST_FIRST"], &["ORIG", "HOST", "ORIG_OR_HOST"])
        })),
        "METADATA" => may(OWNERS.contains(&need()?.split(':').next().unwrap_or_default())),
        "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => may(filter_state(need()?)),
        "QUERY_PARAM" | "ENVIRONMENT" | "DYNAMIC_METADATA" | "CLUSTER_METADATA" | "UPSTREAM_METADATA" => {
            need().map(|_| ())
        }
        _ if PLAIN.contains(&name) => match given {
            None => Ok(()),
            Some(bits) if name.ends_with("_ADDRESS_WITHOUT_PORT") => may(bits.parse::<u8>().is_ok_and(|n| n <= 128)),
            Some(_) => Err(Some(format!("%{name}% takes nothing in parentheses"))),
        },
        _ => Err(None),
    }
}

/// Whose metadata can be read.
const OWNERS: [&str; 7] =
    ["CLUSTER", "DYNAMIC", "LISTENER", "LISTENER_FILTER_CHAIN", "ROUTE", "UPSTREAM_HOST", "VIRTUAL_HOST"];

/// `FIRST` or `FIRST:SECOND`, each one of its list or empty.
fn two_words(argument: &str, first: &[&str], second: &[&str]) -> bool {
    let (one, two) = argument.split_once(':').unwrap_or((argument, ""));
    (one.is_empty() || first.contains(&one)) && (two.is_empty() || second.contains(&two))
}

/// `KEY`, `KEY:PLAIN`, `KEY:TYPED` or `KEY:FIELD:NAME`.
fn filter_state(argument: &str) -> bool {
    let mut parts = argument.split(':').skip(1);
    matches!(
        (parts.next(), parts.next(), parts.next()),
        (None | Some("PLAIN" | "TYPED"), None, None) | (Some("FIELD"), Some(_), None)
    )
}

fn plain_header(name: &str) -> bool {
    !name.starts_with(':') && is_header_name(name)
}

const PSEUDO: [&str; 5] = [":authority", ":method", ":path", ":scheme", ":status"];

/// `NAME`, or `NAME?OTHER` with a second one for when there is no first.
fn headers(argument: &str, known: impl Fn(&str) -> bool) -> bool {
    let (first, second) = argument.split_once('?').unwrap_or((argument, argument));
    [first, second].iter().all(|name| known(&name.to_ascii_lowercase()))
}

/// Patterns of `strftime`, as far as they have a meaning without a locale, with fractions of seconds.
fn time(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some((_, after)) = rest.split_once('%') {
        let one = after.strip_prefix(|c: char| "YymdejHIMSfpBbhAawszZTRFDcnt%".contains(c));
        let digits = || after.strip_prefix(|c: char| matches!(c, '1'..='9'))?.strip_prefix('f');
        let seconds = || after.strip_prefix('E')?.strip_prefix(|c: char| c.is_ascii_digit())?.strip_prefix(['S', 's']);
        match one.or_else(digits).or_else(seconds) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// `FROM:TO:UNIT`.
fn common_duration(argument: &str) -> bool {
    let moment = |name: &str| {
        matches!(
            name,
            "DS_RX_BEG"
                | "DS_RX_END"
                | "US_CX_BEG"
                | "US_CX_END"
                | "US_HS_END"
                | "US_TX_BEG"
                | "US_TX_END"
                | "US_RX_BEG"
                | "US_RX_BODY_BEG"
                | "US_RX_END"
                | "DS_TX_BEG"
                | "DS_TX_END"
        )
    };
    match argument.split(':').collect::<Vec<_>>().as_slice() {
        [from, to, unit] => moment(from) && moment(to) && matches!(*unit, "ms" | "us"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_values_have_operators_that_proxies_know() {
        for good in [
            "",
            "plain",
            "100%%",
            "%%%PROTOCOL%%%",
            "%REQ(X-A?:PATH):10%-%RESP(x-b)%",
            "%DOWNSTREAM_REMOTE_ADDRESS%",
            "%UPSTREAM_REQUEST_ATTEMPT_COUNT:3%",
            "%PATH(NQ:PATH)% %HOSTNAME% %STREAM_ID% %METADATA(ROUTE:a:b)% %ENVIRONMENT(HOME)% %START_TIME(%s)%",
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)% %BYTES_RECEIVED%",
        ] {
            assert_eq!(header(good), Ok(()), "{good}");
        }
        for bad in [
            "100%",
            "%",
            "%%%",
            "50% off",
            "%NO_SUCH%",
            "%REQ%",
            "%REQ()%",
            "%REQ(a b)%",
            "%RESP(:status)%",
            "%REQ(a",
            "%REQ(a):x%",
            "%REQ(a):%",
            "%PROTOCOL(x)%",
            "%protocol%",
            "%START_TIME(%Q)%",
            "%REQ_WITHOUT_QUERY(:PATH)%",
            "%PATH(x)%",
            "%METADATA(NOBODY:a)%",
        ] {
            assert!(header(bad).unwrap_err().contains("%%"), "{bad:?} should be refused with advice");
        }
    }

    #[test]
    fn lines_have_more_operators() {
        for good in [
            "[%START_TIME%] \"%REQ(:METHOD)% %BYTES_SENT%\" 100%%\n",
            "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ %s.%6f %E9s)%",
            "%START_TIME(%E3S)%",
            "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)%",
            "%GRPC_STATUS% %GRPC_STATUS(NUMBER)%",
            "%DYNAMIC_METADATA(a:b):10%",
        ] {
            assert_eq!(log_line(good), Ok(()), "{good}");
        }
        for bad in [
            "%NO% 100%\n",
            "%START_TIME(%Q)%",
            "%START_TIME(%9s)%",
            "%GRPC_STATUS(x)%",
            "%COMMON_DURATION(a:b:ms)%",
            "%FILTER_STATE%",
            "%FILTER_STATE(a:b)%",
        ] {
            assert!(log_line(bad).is_err(), "{bad:?} should be refused");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_doubled_percent_signs_are_fine(text in ".*", odd in "[%A-Z():0-9]*") {
            let _ = (header(&text), log_line(&text), header(&odd), log_line(&odd));
            prop_assert_eq!(header(&text.replace('%', "%%")), Ok(()));
        }
    }
}
