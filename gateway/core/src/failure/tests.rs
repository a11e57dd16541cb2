//! Tests of `failure`.

use super::*;

#[test]
fn flags_print_in_the_order_raised_and_parse_back() {
    let mut flags: Flags = [Flag::UpstreamRetryLimitExceeded, Flag::UpstreamConnectionFailure].into_iter().collect();
    flags.insert(Flag::UpstreamRetryLimitExceeded);
    assert_eq!(flags.to_string(), "URX,UF");
    assert_eq!(Flags::NONE.to_string(), "-");
    for (index, flag) in Flag::all().enumerate() {
        assert_eq!(flag as usize, index, "the table is in the order of the enum");
        assert_eq!(Flag::parse(flag.short()), Some(flag));
    }
}

#[test]
fn overflow_is_the_reply_that_clients_of_envoy_know() {
    let overflow = Failure::new(Kind::Overflow);
    assert_eq!(
        (overflow.status(), overflow.flag(), overflow.extra_header()),
        (503, Some(Flag::UpstreamOverflow), Some("x-envoy-overloaded"))
    );
    assert_eq!(overflow.body(false).len(), 81);
    assert_eq!(overflow.details(false), "upstream_reset_before_response_started{overflow}");
}

#[test]
fn a_transport_reason_shows_in_the_log_and_not_to_the_client() {
    let refused = Failure::new(Kind::ConnectFailure).with_reason("delayed connect error: Connection refused");
    assert_eq!(
        refused.details(false),
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
    );
    assert_eq!(
        refused.body(true),
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
    );
    assert_eq!(refused.transport_reason(), Some("delayed connect error: Connection refused"));
    assert_eq!(Failure::new(Kind::UpstreamReset).details(true), "upstream_reset_after_response_started{remote_reset}");
}

#[test]
fn grpc_status_follows_the_http_status_unless_the_table_says_more() {
    assert_eq!(Failure::new(Kind::NoCluster).grpc_status(), 14);
    assert_eq!(Failure::new(Kind::NoCluster).with_status(404).grpc_status(), 12);
    assert_eq!(Failure::new(Kind::MaxStreamDuration).grpc_status(), 4);
    assert_eq!(Failure::new(Kind::UpstreamTimeout).grpc_status(), 14);
}

#[test]
fn what_configuration_says_wins() {
    let parse_error = Failure::new(Kind::MalformedRequest).with_reason("http1.body_disallowed");
    assert_eq!(parse_error.details(false), "http1.body_disallowed");
    assert_eq!(parse_error.transport_reason(), None);
    assert_eq!(Failure::new(Kind::FaultInjected).with_status(418).status(), 418);
}
