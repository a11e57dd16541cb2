//! What is logged, changeable while the process runs.
//!
//! Owns the one filter of the process. Used by `lib.rs` at start and by the admin interface.

use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::EnvFilter;

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();
static CURRENT: Mutex<String> = Mutex::new(String::new());

/// Starts logging to standard error.
pub(crate) fn start(filter: &str, json: bool) {
    let parsed = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    // An error says that somebody else in this process logs already; then there is nothing to change here.
    if json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            remember(filter, Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())));
        }
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            remember(filter, Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())));
        }
    }
}

fn remember(filter: &str, reload: Reload) {
    filter.clone_into(&mut CURRENT.lock().unwrap_or_else(PoisonError::into_inner));
    let _ = RELOAD.set(reload);
}

/// The filter in force.
pub(crate) fn current() -> String {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes another filter.
pub(crate) fn set(filter: &str) -> Result<(), String> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let reload = RELOAD.get().ok_or("logging was not started here")?;
    reload(parsed)?;
    filter.clone_into(&mut CURRENT.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}
