//! Whether a mail comes from the domain that its `From` names: DKIM (RFC 6376) and DMARC (RFC 9989), by
//! `mail-auth`. SPF says nothing here, for the mail is not received from the sending server itself.
//!
//! A mail is proven when a signature over it verifies, covers `From` and the whole body, and is of exactly the
//! domain in `From`, or aligned with it as that domain's DMARC record allows. Whatever cannot be found out in
//! time proves nothing.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mail_auth::common::cache::NoCache;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dmarc::Dmarc;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DmarcResult, DnsError, Error, MessageAuthenticator,
    Parameters, ResolverCache, SpfOutput, Txt,
};

use super::{headers, without_envelope};
use crate::domain::digest::Digest;
use crate::domain::proof::Proof;

/// How long the names of one mail may take to be looked up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Signatures looked at: each is a name to be looked up and a key to be tried.
const MAX_SIGNATURES: usize = 8;

/// Records kept.
const MAX_RECORDS: usize = 2_000;

/// Tells who mail is from.
#[derive(Clone)]
pub struct Authenticator {
    dns: MessageAuthenticator,
    records: Arc<Records>,
}

/// The name service cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("names cannot be looked up: {0}")]
pub struct NoNames(String);

impl Authenticator {
    /// Asks the name servers of this machine.
    ///
    /// # Errors
    /// When there are none.
    pub fn system() -> Result<Self, NoNames> {
        let dns = MessageAuthenticator::new_system_conf().map_err(|error| NoNames(error.to_string()))?;
        Ok(Self { dns, records: Arc::new(Records { known: Mutex::default(), asks: true }) })
    }

    /// Knows these TXT records, each under its name such as `mail._domainkey.example.com`, and asks nobody.
    ///
    /// # Errors
    /// When the resolver cannot be built.
    pub fn fixed<'a>(records: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, NoNames> {
        let config = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        let dns = MessageAuthenticator::new(config, ResolverOpts::default());
        let dns = dns.map_err(|error| NoNames(error.to_string()))?;
        let for_good = Instant::now() + Duration::from_secs(365 * 86_400);
        let known = records.into_iter().map(|(name, text)| {
            let name = format!("{}.", name.trim_end_matches('.').to_lowercase());
            (name.into_boxed_str(), (parsed(text), for_good))
        });
        Ok(Self { dns, records: Arc::new(Records { known: Mutex::new(known.collect()), asks: false }) })
    }

    /// What proves that a raw mail is from the domain of its `From`; nothing when nothing does.
    pub async fn proof(&self, raw: Bytes) -> Option<Proof> {
        let here = self.clone();
        let runtime = tokio::runtime::Handle::current();
        // Up to 25 MiB are hashed: too long for the thread that serves everybody.
        let work = tokio::task::spawn_blocking(move || {
            runtime.block_on(async { tokio::time::timeout(PATIENCE, here.look(&raw)).await })
        });
        match work.await {
            Ok(Ok(proof)) => proof,
            Ok(Err(_)) => {
                tracing::warn!("it took too long to look up whom a mail is from; it counts as unproven");
                None
            }
            Err(error) => {
                tracing::error!(%error, "whom a mail is from could not be looked at");
                None
            }
        }
    }

    async fn look(&self, raw: &[u8]) -> Option<Proof> {
        let raw = without_envelope(raw);
        let (heads, _) = headers::split(raw);
        let signatures = heads.count("DKIM-Signature");
        if !(1..=MAX_SIGNATURES).contains(&signatures) || heads.count("From") != 1 {
            return None;
        }
        let message = AuthenticatedMessage::parse(raw)?;
        let [from] = &message.from[..] else { return None };
        let domain = from.rsplit_once('@')?.1.to_lowercase();
        let signed = self.dns.verify_dkim(self.parameters(&message)).await;
        let sound: Vec<&DkimOutput<'_>> = signed.iter().filter(|output| is_sound(output)).collect();
        let of_domain = sound.iter().find(|output| {
            output.signature().is_some_and(|signature| signature.d.eq_ignore_ascii_case(&domain))
        });
        let output = match of_domain {
            Some(output) => output,
            None => self.aligned(&message, &sound).await?,
        };
        let signature = output.signature()?;
        let named = |name: &str| signature.h.iter().filter(|one| one.eq_ignore_ascii_case(name)).count();
        // One that stands there more often than it was signed has somebody else's line among its own.
        let covers = signature.h.iter().map(|header| header.to_lowercase());
        Some(Proof {
            domain,
            covers: covers.filter(|name| heads.count(name) <= named(name)).collect(),
            fingerprint: Digest::of_bytes(&signature.b),
        })
    }

    /// The signature that the DMARC record of the domain lets speak for it.
    async fn aligned<'a>(
        &self,
        message: &AuthenticatedMessage<'_>,
        sound: &[&'a DkimOutput<'a>],
    ) -> Option<&'a DkimOutput<'a>> {
        let nothing = SpfOutput::new(String::new());
        for output in sound {
            let one = [(*output).clone()];
            let parameters = DmarcParameters::new(message, &one, "", &nothing);
            let found = self.dns.verify_dmarc(self.parameters(parameters)).await;
            if *found.dkim_result() == DmarcResult::Pass {
                return Some(output);
            }
        }
        None
    }

    fn parameters<P>(&self, params: P) -> Asking<'_, P> {
        Parameters::new(params).with_txt_cache(self.records.as_ref())
    }
}

/// What is asked, with the records that are known; of other kinds than TXT none are kept.
type Asking<'a, P> = Parameters<
    'a,
    P,
    Records,
    NotKept<Box<str>, mail_auth::MX>,
    NotKept<Box<str>, std::net::Ipv4Addr>,
    NotKept<Box<str>, std::net::Ipv6Addr>,
    NotKept<std::net::IpAddr, Box<str>>,
>;

type NotKept<Name, Record> = NoCache<Name, mail_auth::RecordSet<Record>>;

/// A signature that verifies and covers all that a reader takes for the sender's. One over a part of the body
/// (`l=`) lets anybody write on; `mail-auth` refuses those, and one that does not cover `From`.
fn is_sound(output: &DkimOutput<'_>) -> bool {
    let covers_all = output.signature().is_some_and(|signature| {
        signature.l == 0 && signature.h.iter().any(|header| header.eq_ignore_ascii_case("from"))
    });
    *output.result() == DkimResult::Pass && covers_all
}

/// What a record says, if it is one that is needed here.
fn parsed(text: &str) -> Txt {
    match DomainKey::parse(text.as_bytes()) {
        Ok(key) => key.into(),
        Err(_) => match Dmarc::parse(text.as_bytes()) {
            Ok(dmarc) => dmarc.into(),
            Err(error) => Txt::Error(error),
        },
    }
}

/// Records that were looked up, each for as long as it says.
struct Records {
    known: Mutex<HashMap<Box<str>, (Txt, Instant)>>,
    /// Whether what is not known may be asked for.
    asks: bool,
}

impl ResolverCache<Box<str>, Txt> for Records {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(name).filter(|(_, until)| *until > Instant::now()).map(|(txt, _)| txt.clone());
        let unknown = || Txt::Error(Error::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain)));
        found.or_else(|| (!self.asks).then(unknown))
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(name).map(|(txt, _)| txt)
    }

    fn insert(&self, name: Box<str>, txt: Txt, until: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_RECORDS {
            known.clear(); // they are only looked up again
        }
        known.insert(name, (txt, until));
    }
}

#[cfg(test)]
#[path = "authentic_tests.rs"]
mod tests;
