//! Logs: text for people, JSON for machines, always on standard error.

use clap::Args;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Flags about logs.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogFlags {
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as info,tombolo_controlplane_server=debug.
    #[arg(long = "log", env = "TOMBOLO_LOG", default_value = "info", value_name = "LEVEL")]
    level: String,
    /// One JSON object per line instead of text.
    #[arg(long = "log-json", env = "TOMBOLO_LOG_JSON")]
    json: bool,
}

impl LogFlags {
    /// Begins to log.
    ///
    /// # Errors
    /// When the filter is malformed, or somebody in this process logs already.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.level)?;
        let base = tracing_subscriber::registry().with(filter);
        if self.json {
            base.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()?;
        } else {
            let colour = std::io::stderr().is_terminal();
            base.with(fmt::layer().with_ansi(colour).with_writer(std::io::stderr)).try_init()?;
        }
        Ok(())
    }
}
