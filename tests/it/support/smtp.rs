//! A mail server on loopback: speaks SMTP, keeps what it accepts, byte for byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One accepted mail.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub from: String,
    pub to: Vec<String>,
    /// The message as it was before dot-stuffing.
    pub bytes: Vec<u8>,
    /// When it was accepted.
    #[allow(dead_code, reason = "the bench of reviews reads it")]
    pub at: jiff::Timestamp,
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub struct MailServer {
    pub address: SocketAddr,
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), accepted: Arc::default() };
        let accepted = server.accepted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, accepted.clone()));
            }
        });
        server
    }

    pub fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, accepted: Arc<Mutex<Vec<Accepted>>>) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    write.write_all(b"220 mail.test ESMTP\r\n").await.ok()?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        let address = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let answer = match verb.as_str() {
            "EHLO" => "250-mail.test\r\n250 8BITMIME\r\n".to_owned(),
            "MAIL" => {
                (from, to) = (address(), Vec::new());
                "250 ok\r\n".to_owned()
            }
            "RCPT" => {
                to.push(address());
                "250 ok\r\n".to_owned()
            }
            "DATA" => {
                write.write_all(b"354 go ahead\r\n").await.ok()?;
                let bytes = message(&mut lines).await?;
                let at = jiff::Timestamp::now();
                accepted.lock().unwrap().push(Accepted { from: from.clone(), to: to.clone(), bytes, at });
                "250 queued\r\n".to_owned()
            }
            "QUIT" => {
                write.write_all(b"221 bye\r\n").await.ok()?;
                return Some(());
            }
            "RSET" | "NOOP" => "250 ok\r\n".to_owned(),
            _ => "502 not here\r\n".to_owned(),
        };
        write.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn message(lines: &mut BufReader<tokio::net::tcp::OwnedReadHalf>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        match &line[..] {
            b".\r\n" => return Some(bytes),
            [b'.', rest @ ..] => bytes.extend_from_slice(rest),
            whole => bytes.extend_from_slice(whole),
        }
    }
}
