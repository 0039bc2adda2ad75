#![allow(clippy::unwrap_used)]

use teeline_archive::ledger::LedgerState;
use teeline_runtime::Store;
use teeline_wire::client::ErrorCode;

use super::super::Settings;
use super::*;

fn recorder() -> Recorder {
    let ledger = LedgerState::new();
    Recorder::new(Store::in_memory(), "daily", "c", &ledger, Settings::default())
}

fn looked(settles: u64, asked: Result<Observation, ClientError>) -> Looked {
    Looked {
        asked: Some(asked),
        settles,
        ..Looked::default()
    }
}

fn away() -> ClientError {
    ClientError::Broker {
        subject: "ask".to_owned(),
        code: ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        message: None,
    }
}

fn merge(recorder: &mut Recorder, looked: Looked) {
    recorder.merge(1_000, looked, &TopicIds::new(), &TopicIds::new());
}

#[test]
fn a_question_is_owed_until_it_is_answered() {
    let mut recorder = recorder();
    recorder.owed.ask();
    let asked = recorder.owed.found();
    merge(&mut recorder, looked(asked, Err(away())));
    assert!(recorder.owed.is_ask_owed(), "asked without an answer");
    merge(&mut recorder, Looked::default());
    assert!(recorder.owed.is_ask_owed(), "not asked");
    // Another reason comes up after the question.
    recorder.owed.ask();
    merge(&mut recorder, looked(asked, Ok(Observation::default())));
    assert!(recorder.owed.is_ask_owed(), "asked too early");
    let asked = recorder.owed.found();
    merge(&mut recorder, looked(asked, Ok(Observation::default())));
    assert!(!recorder.owed.is_ask_owed());
}

#[test]
fn a_gap_is_said_by_the_next_look_that_succeeds() {
    let said = |recorder: &Recorder| match recorder.book(StateKind::Groups).items().get(&source_key()) {
        Some(ItemValue::Source(source)) => Some((source.way.clone(), source.reason.clone())),
        _ => None,
    };
    let gap = Some((POLL.to_owned(), GAP.to_owned()));
    let mut recorder = recorder();
    merge(&mut recorder, looked(0, Ok(Observation::default())));
    assert_eq!(recorder.source.as_ref().unwrap().way, LOG);
    // The look that found it failed before its end.
    recorder.owed.gap = true;
    recorder.note_log(2_000, &TopicIds::new());
    assert_eq!(said(&recorder), gap);
    assert!(!recorder.owed.gap);
    // Or is followed by one that writes down what was gathered.
    merge(&mut recorder, looked(0, Ok(Observation::default())));
    recorder.owed.gap = true;
    recorder.spill(3_000);
    assert_eq!(said(&recorder), gap);
    assert!(!recorder.owed.gap);
}
