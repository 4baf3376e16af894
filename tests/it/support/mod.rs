//! What the tests share: databases, services, mail and model servers. No fixed port, no shared folder.

pub mod asking;
pub mod batch_server;
pub mod bench;
pub mod browser;
pub mod database;
pub mod dkim;
pub mod embedding;
pub mod forge;
pub mod letters;
pub mod model_server;
pub mod process;
pub mod rig;
pub mod service;
pub mod slack;
pub mod smtp;
pub mod visitor;

use std::future::Future;
use std::time::{Duration, Instant};

pub use database::database;
pub use service::{App, app, app_knowing, app_with};

/// How long anything that should happen may take on a slow, busy machine. Never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Asks until the answer is there.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let since = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(25));
    loop {
        pause.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
    }
}

/// The built-in encoder, loaded once.
pub fn encoder() -> std::sync::Arc<dyn steward::memory::Embedder> {
    std::sync::Arc::new(steward::models::encoder::Encoder::load().unwrap())
}

/// An example email of the repository.
pub fn example_email(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/inbox").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
