//! Transport settings: windows, streams, clocks.

use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};
use std::{sync::Arc, time::Duration};
use tombolo_gateway_core::config::{Http3Settings, QuicSettings};

/// Streams at once when nothing is configured.
const STREAMS: u32 = 100;
/// Unidirectional streams: three are needed, some clients open more to keep servers tolerant.
const UNI_STREAMS: u32 = 16;
/// Windows when nothing is configured: enough for a fast network, bounded against a slow reader.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What is sent and not acknowledged, of one connection.
const UNACKNOWLEDGED: u64 = 2 << 20;
/// A peer that is not heard of for so long is gone.
const IDLE: Duration = Duration::from_secs(300);

/// Towards clients.
pub(super) fn downstream(settings: &QuicSettings) -> Arc<TransportConfig> {
    let mut config = common(&settings.http3, settings.idle.unwrap_or(IDLE));
    config.max_concurrent_bidi_streams(settings.http3.max_streams.unwrap_or(STREAMS).into());
    Arc::new(config)
}

/// Towards upstreams.
pub(super) fn upstream(settings: &Http3Settings) -> Arc<TransportConfig> {
    let mut config = common(settings, IDLE);
    // A server opens no requests.
    config.max_concurrent_bidi_streams(0_u32.into());
    config.keep_alive_interval(settings.keepalive);
    Arc::new(config)
}

fn common(settings: &Http3Settings, idle: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = settings.idle.unwrap_or(idle);
    let mut acks = AckFrequencyConfig::default();
    // With a peer that knows how: fewer packets that only acknowledge.
    acks.ack_eliciting_threshold(10_u32.into());
    config
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(settings.stream_window.unwrap_or(STREAM_WINDOW).into())
        .receive_window(settings.connection_window.unwrap_or(CONNECTION_WINDOW).into())
        .send_window(UNACKNOWLEDGED)
        .max_idle_timeout(IdleTimeout::try_from(idle).ok().or(Some(IdleTimeout::from(VarInt::from_u32(300_000)))))
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(acks));
    config
}
