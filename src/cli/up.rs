//! `steward up`: the service of a workspace in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::{Options, Service, asked_to_stop};
use crate::cli::client::workspace;
use crate::cli::{Fail, out};

/// `steward up`.
#[derive(clap::Args, Clone, Debug)]
pub struct UpArgs {
    /// The workspace folder; the nearest parent folder with config/settings.yaml when not given
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Where to listen, before what config/settings.yaml says; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// Serves a workspace until the process is asked to stop.
///
/// # Errors
/// When the service cannot start, in the words of the part that failed, or not stop in order.
pub async fn up(args: UpArgs) -> Result<(), Fail> {
    let options = Options {
        workspace: workspace(args.workspace.as_deref()),
        listen: args.listen,
        database: None,
        authenticator: None,
        progress: Box::new(out::note),
    };
    let service = Service::start(options).await?;
    let asked = asked_to_stop();
    out::line(&format!("steward is up at {} (Ctrl-C stops it)", service.url()))?;
    let link = service.sign_in_link().await?;
    out::line(&format!("sign in: {} (once, within 15 minutes; `steward login` makes another)", link.url))?;
    Ok(service.run_until(asked).await?)
}
