//! Triggers that wait before they open a run. An input is acknowledged once it is durable in its group;
//! the group's run is opened when the group is due, under a key made from the group's id. A crash in
//! between costs nothing: the same group meets its own key.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::gather::Gather;
use crate::domain::ids::RunId;
use crate::domain::label::Label;
use crate::domain::template::Scope;
use crate::orchestrator::door::{Door, OpenError, Request};
use crate::store::StoreError;
use crate::store::gathered::{Group, Joined, NewItem};
use crate::store::journal::Opened;

/// The longest key that is kept as it is, bytes: it is part of an index entry. A longer one becomes its digest.
const MAX_KEY: usize = 200;

/// How long a group waits whose run cannot be opened as things are: until the owner mends the workflow.
const HELD: SignedDuration = SignedDuration::from_secs(60);

/// What a trigger made of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It has a run.
    Run(Opened),
    /// It waits in a group.
    Gathered {
        /// When the group's run opens, if nothing more comes; not known for one that is about to.
        due_at: Option<Timestamp>,
        /// Whether it is new; not for the same delivery again.
        new: bool,
    },
}

impl Taken {
    /// The run, if there is one already.
    #[must_use]
    pub fn run(self) -> Option<RunId> {
        match self {
            Self::Run(opened) => Some(opened.run()),
            Self::Gathered { .. } => None,
        }
    }
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(opened) => write!(f, "run {}", opened.run()),
            Self::Gathered { due_at: Some(at), .. } => write!(f, "a group that opens its run at {at}"),
            Self::Gathered { due_at: None, .. } => f.write_str("a group that is about to open its run"),
        }
    }
}

/// Opens a run for a request, or gathers it if its trigger says so; `trigger` is the trigger's own name,
/// such as `webhook:orders`. Gives back once the one or the other is durable.
///
/// # Errors
/// See [`OpenError`]; nothing was kept then.
pub async fn take(
    door: &Door,
    request: Request,
    trigger: &str,
    gather: Option<&Gather>,
) -> Result<Taken, OpenError> {
    let Some(gather) = gather else { return Ok(Taken::Run(door.open(request).await?)) };
    // Once it is acknowledged, nobody is there to be told that it does not fit.
    let alone = gather.input(vec![request.input.clone()]).unwrap_or_default();
    door.fits(&request.workflow, &alone)?;
    let item_key = request.key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let item = NewItem {
        workflow: &request.workflow,
        trigger,
        key: &key(door, gather, &request)?,
        gather,
        item_key: &item_key,
        input: &request.input,
        label: request.label,
        at: door.engine().now(),
    };
    Ok(match door.engine().store.gather(&item).await? {
        Joined::Opened(run) => Taken::Run(Opened::Existing(run)),
        Joined::Again(due_at) => Taken::Gathered { due_at, new: false },
        Joined::New { group, due_at, full } => {
            if full {
                // Only sooner: the clock's next look would find it as well.
                let door = door.clone();
                tokio::spawn(async move { look_after(&door, group).await });
            }
            Taken::Gathered { due_at: Some(due_at), new: true }
        }
    })
}

fn key(door: &Door, gather: &Gather, request: &Request) -> Result<String, OpenError> {
    let Some(template) = gather.key() else { return Ok(String::new()) };
    let context = json!({"input": request.input, "workspace": door.engine().workspace});
    let key =
        Scope::new(&context, |_| request.label).text(template).map_err(|error| OpenError::BadInput {
            workflow: request.workflow.clone(),
            why: format!("its key cannot be filled in: {error}"),
        })?;
    Ok(if key.len() > MAX_KEY { Digest::of_bytes(key.as_bytes()).to_string() } else { key })
}

/// Opens the runs of the groups that are due at `now`. One group that cannot be opened stops no other.
///
/// # Errors
/// When the database does not say which groups are due.
pub async fn tick(door: &Door, now: Timestamp) -> Result<(), StoreError> {
    loop {
        let due = door.engine().store.close_due_groups(now).await?;
        let mut opened = 0;
        for group in &due {
            let door = door.clone();
            let group = *group;
            // In a task of its own: what crashes here crashes alone.
            let work = tokio::spawn(async move { look_after(&door, group).await }).await;
            opened += usize::from(work.unwrap_or_else(|crash| {
                tracing::error!(%group, %crash, "opening the run of gathered inputs crashed");
                false
            }));
        }
        // What was put off is not due any more; if nothing was opened, the database is in trouble.
        if due.is_empty() || opened == 0 {
            return Ok(());
        }
    }
}

/// Opens a closed group's run, or says why not; whether the group is done with.
async fn look_after(door: &Door, id: Uuid) -> bool {
    let store = &door.engine().store;
    let failed = match open(door, id).await {
        Ok(()) => return true,
        Err(error) => error,
    };
    if failed.retryable() {
        tracing::warn!(group = %id, error = %failed, "gathered inputs have to wait for their run");
        return false;
    }
    let until = door.engine().now().checked_add(HELD).unwrap_or(Timestamp::MAX);
    match store.defer_group(id, until, &failed.to_string()).await {
        Ok(true) => {
            tracing::error!(group = %id, error = %failed, "gathered inputs cannot open their run; they are kept");
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(group = %id, %error, "gathered inputs could not be put off"),
    }
    false
}

async fn open(door: &Door, id: Uuid) -> Result<(), OpenError> {
    let store = &door.engine().store;
    let Some(group) = store.closed_group(id).await? else { return Ok(()) };
    let opened = door.open(request(group)?).await?;
    store.settle_group(id, opened.run()).await?;
    tracing::info!(group = %id, run = %opened.run(), "gathered inputs opened a run");
    Ok(())
}

fn request(group: Group) -> Result<Request, StoreError> {
    let Group { id, workflow, trigger, spec, items } = group;
    let corrupt = |why: String| StoreError::corrupt(format!("group {id} of gathered inputs"), why);
    let gather: Gather = serde_json::from_value(spec).map_err(|error| corrupt(error.to_string()))?;
    let (labels, inputs): (Vec<Label>, Vec<Value>) = items.into_iter().unzip();
    let label = gather.label(&labels);
    let input = gather.input(inputs).ok_or_else(|| corrupt("it is empty".into()))?;
    let trigger = if trigger.starts_with("email:") { "email" } else { "webhook" };
    Ok(Request { workflow, input, label, trigger, key: Some(format!("gathered:{id}")), verified: None })
}
