//! A restore from beginning to end: plan, guards, check, preparation, work, putting right, verification.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teeline_runtime::{Shutdown, Store};
use teeline_wire::client::OffsetAt;

use crate::check;
use crate::error::RestorerError;
use crate::job::RestoreJob;
use crate::ledger;
use crate::plan::{Plan, PlanView, plan};
use crate::progress::{Display, Phase};
use crate::report::{Report, Restored};
use crate::tally::Live;
use crate::target::prepare::{EndOffsets, HeldOff};
use crate::target::{Found, Target, view};
use crate::warnings;
use crate::work::restore_partitions;

/// How a restore ended.
#[derive(Debug)]
pub enum Outcome {
    /// Only the plan was wanted.
    Planned,
    /// Everything was tried and verified; the report says whether it was all.
    Restored(Box<Report>),
}

/// Runs a restore. `show` gets the plan before anything is changed.
///
/// Stopping: `shutdown` ends checking and producing at the next await; what is on its way to the target is not waited
/// for. The settings that were held off are put back in every case, then the error is returned.
pub async fn run(
    job: &RestoreJob,
    now_ms: i64,
    display: Display,
    shutdown: &Shutdown,
    show: impl FnOnce(&PlanView),
) -> Result<Outcome, RestorerError> {
    let store = Store::open_existing(&job.storage)?;
    let backup = ledger::load_whole(&store, &job.backup_id).await?;
    let mut plan = plan(&backup.state, &backup.id, &job.request)?;
    check::refine(&store, &mut plan).await?;
    let unknown_entries = backup.state.unknown_entries();
    // The plan holds what it needs; the ledger of a big archive is not small.
    drop(backup);
    let target = Target::connect(&job.target).await?;
    let found = target.inspect(&plan).await?;
    let mut plan_view = view(&plan, &found, target.bootstrap(), job.allowed);
    plan_view.warnings.extend(warnings::of(
        &plan,
        &found,
        now_ms,
        unknown_entries,
        job.keep_retention_off,
    ));
    show(&plan_view);
    if !plan_view.refused.is_empty() {
        return Err(RestorerError::Guard {
            reasons: plan_view.refused,
        });
    }
    if job.dry_run {
        return Ok(Outcome::Planned);
    }
    let batch_bytes = if job.validate_checksum {
        let live = Arc::new(Live::default());
        let _phase = Phase::begin(display, "check", plan.archive_bytes(), Arc::clone(&live));
        check::check(&store, &plan, &live, shutdown).await?
    } else {
        check::largest_block(&store, &plan).await?
    };
    if shutdown.is_triggered() {
        return Err(RestorerError::Interrupted);
    }
    // Checking may have taken hours: what the guards saw then need not be so now.
    let found = target.inspect(&plan).await?;
    let refused = view(&plan, &found, target.bootstrap(), job.allowed).refused;
    if !refused.is_empty() {
        return Err(RestorerError::Guard { reasons: refused });
    }
    let task = Task {
        job,
        store: &store,
        plan: &plan,
        target: &target,
        found: &found,
        batch_bytes,
        display,
    };
    carry_out(&task, shutdown).await
}

/// What is to be done, and all that was found out about it.
struct Task<'a> {
    job: &'a RestoreJob,
    store: &'a Store,
    plan: &'a Plan,
    target: &'a Target,
    found: &'a Found,
    /// No batch is larger.
    batch_bytes: u64,
    display: Display,
}

async fn carry_out(task: &Task<'_>, shutdown: &Shutdown) -> Result<Outcome, RestorerError> {
    let Task {
        job, plan, target, ..
    } = *task;
    let mut held = HeldOff::default();
    let result = produce(task, &mut held, shutdown).await;
    // Whatever happened, the settings are put back; that may itself fail, and then a person must know.
    let failures = target.put_back(&held, job.keep_retention_off).await;
    if !failures.is_empty() {
        return Err(RestorerError::SettingsNotPutBack {
            topics: failures,
            before: result.err().map(Box::new),
        });
    }
    let produced = result?;
    let after = end_offsets(target, &produced.before).await?;
    let offset = |ends: &EndOffsets, topic: &str, partition: i32| {
        let place = usize::try_from(partition).unwrap_or(usize::MAX);
        ends.get(topic)
            .and_then(|ends| ends.get(place))
            .copied()
            .unwrap_or(-1)
    };
    let offsets = |topic: &str, partition: i32| {
        (
            offset(&produced.before, topic, partition),
            offset(&after, topic, partition),
        )
    };
    let mut report = Report::new(plan, &produced.restored, offsets, produced.elapsed);
    report.notes.append(&mut held.notes);
    Ok(Outcome::Restored(Box::new(report)))
}

struct Produced {
    before: EndOffsets,
    restored: Vec<Restored>,
    elapsed: Duration,
}

async fn produce(
    task: &Task<'_>,
    held: &mut HeldOff,
    shutdown: &Shutdown,
) -> Result<Produced, RestorerError> {
    let Task {
        job,
        store,
        plan,
        target,
        ..
    } = *task;
    let before = target.prepare(plan, task.found, task.batch_bytes, held).await?;
    let live = Arc::new(Live::default());
    let begun = Instant::now();
    let phase = Phase::begin(task.display, "restore", plan.archive_bytes(), Arc::clone(&live));
    let restored = restore_partitions(store, plan, target, job.pace, &live, shutdown).await;
    drop(phase);
    Ok(Produced {
        before,
        restored: restored?,
        elapsed: begun.elapsed(),
    })
}

async fn end_offsets(target: &Target, before: &EndOffsets) -> Result<EndOffsets, RestorerError> {
    let mut after = EndOffsets::new();
    for (topic, ends) in before {
        let partitions = i32::try_from(ends.len()).unwrap_or(i32::MAX);
        after.insert(
            topic.clone(),
            target.offsets(topic, partitions, OffsetAt::Latest).await?,
        );
    }
    Ok(after)
}
