//! A proxy between Steward and PostgreSQL, from TCP on loopback to the server's socket, that breaks
//! connections: all of them at once, or each just after a statement went through and before its answer,
//! so that nobody but the database knows what became of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    socket: PathBuf,
    /// Counted up, it ends every connection.
    cut_now: watch::Sender<u64>,
    /// The next statement on any connection is the last one there.
    cut_next: AtomicBool,
    /// Connections that a statement was cut on.
    cut_mid: AtomicUsize,
    /// Connections that were cut at once.
    cut_idle: AtomicUsize,
}

impl Proxy {
    pub async fn start(socket: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            socket: socket.to_owned(),
            cut_now: watch::Sender::new(0),
            cut_next: AtomicBool::new(false),
            cut_mid: AtomicUsize::new(0),
            cut_idle: AtomicUsize::new(0),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, shared.clone()));
            }
        });
        Ok(Self { address, state })
    }

    /// Breaks every connection now.
    pub fn cut_all(&self) {
        self.state.cut_now.send_modify(|count| *count += 1);
    }

    /// Breaks the connection of the next statement, once it has been forwarded.
    pub fn cut_next_statement(&self) {
        self.state.cut_next.store(true, Ordering::SeqCst);
    }

    /// How many connections were broken: before an answer, and at rest or anywhere.
    pub fn cuts(&self) -> (usize, usize) {
        (self.state.cut_mid.load(Ordering::SeqCst), self.state.cut_idle.load(Ordering::SeqCst))
    }
}

async fn carry(client: TcpStream, state: Arc<State>) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let server = UnixStream::connect(&state.socket).await.ok()?; // down: the client hears a closed connection
    let mut cut_now = state.cut_now.subscribe();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from_client.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
            to_server.write_all(&bytes[..read]).await.ok()?;
            if executes(&bytes[..read]) && state.cut_next.swap(false, Ordering::SeqCst) {
                state.cut_mid.fetch_add(1, Ordering::SeqCst);
                return Some(()); // both halves are dropped: the answer has nowhere to go
            }
        }
    };
    let downwards = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
            to_client.write_all(&bytes[..read]).await.ok()?;
        }
    };
    tokio::select! {
        biased;
        ended = cut_now.changed() => {
            if ended.is_ok() {
                state.cut_idle.fetch_add(1, Ordering::SeqCst);
            }
        }
        _ = upwards => {}
        _ = async { let _: Option<()> = downwards.await; } => {}
    }
    None
}

/// Whether these bytes have a statement executed: a simple query (`Q`) or an `Execute` (`E`). A message is
/// a letter and its length; what does not begin with one is the rest of a long message, and counts as one.
fn executes(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [kind, a, b, c, d, ..] = rest {
        if matches!(kind, b'Q' | b'E') {
            return true;
        }
        let length = 1 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(next) = rest.get(length..).filter(|_| kind.is_ascii_alphabetic() && length > 4) else {
            return bytes.len() > 4096;
        };
        rest = next;
    }
    false
}
