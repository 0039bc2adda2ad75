use super::*;

/// Looks every ten seconds at what a connection is made to do in between; after how many seconds it is closed, and why.
fn watched(
    idle_max: Option<Duration>,
    seconds: u64,
    mut meanwhile: impl FnMut(u64, &mut Sight),
) -> Option<(u64, Finding)> {
    let began = Instant::now();
    let mut watch = Watch::new(idle_max, began);
    let mut sight = Sight::default();
    for at in (10..=seconds).step_by(10) {
        meanwhile(at, &mut sight);
        if let Some(finding) = watch.look(began + Duration::from_secs(at), sight) {
            return Some((at, finding));
        }
    }
    None
}

fn moves(sight: &mut Sight, bytes: u64) {
    sight.moved += 1;
    sight.from_client += bytes;
}

#[test]
fn whoever_is_idle_is_closed_and_whoever_rests_between_requests_is_not_stuck() {
    let idle = Some(Duration::from_secs(900));
    assert_eq!(watched(idle, 2_000, |_, _| {}), Some((900, Finding::Idle)));
    assert_eq!(watched(None, 100_000, |_, _| {}), None);
    let busy = watched(idle, 10_000, |_, sight| {
        moves(sight, 40);
        sight.rests += 1;
    });
    assert_eq!(busy, None);
}

#[test]
fn a_request_that_is_begun_and_not_gone_on_with_is_closed_whatever_drips() {
    for drip in [0, 1, 100] {
        let closed = watched(None, 1_000, |_, sight| {
            moves(sight, drip);
            sight.awaits_rest = true;
        });
        assert_eq!(closed, Some((30, Finding::Silent)), "{drip} bytes in ten seconds");
    }
}

#[test]
fn a_short_idle_time_bounds_the_silence_in_a_request_too() {
    let idle = Some(Duration::from_secs(10));
    let closed = watched(idle, 1_000, |_, sight| {
        moves(sight, 1);
        sight.awaits_rest = true;
    });
    assert_eq!(closed, Some((20, Finding::Silent)));
}

#[test]
fn requests_that_follow_each_other_closely_are_never_stuck() {
    // Every look finds the middle of a request, and each time of another one.
    let busy = watched(None, 10_000, |_, sight| {
        moves(sight, 300);
        sight.awaits_rest = true;
        sight.rests += 1;
    });
    assert_eq!(busy, None);
    let bulk = watched(None, 10_000, |_, sight| {
        moves(sight, 10 << 20);
        sight.awaits_rest = true;
        sight.whole = Some((sight.moved, 1 << 20));
    });
    assert_eq!(bulk, None);
}

#[test]
fn the_time_in_which_the_proxy_does_not_read_is_not_the_clients_fault() {
    let pushed_back = watched(None, 10_000, |_, sight| {
        sight.whole = Some((1, 90 << 20));
        sight.contended = true;
    });
    assert_eq!(pushed_back, None);
    let then_goes_on = watched(None, 500, |at, sight| {
        sight.whole = Some((1, 1 << 20));
        sight.awaits_rest = at > 480;
        moves(sight, 100_000);
    });
    assert_eq!(then_goes_on, None, "what went before does not count");
}

#[test]
fn a_frame_that_holds_memory_has_to_arrive_in_time_and_sooner_while_others_wait() {
    let slow = |contended: bool, length: usize| {
        watched(None, 1_000, |_, sight| {
            moves(sight, 10_000);
            sight.awaits_rest = true;
            sight.whole = Some((1, length));
            sight.contended = contended;
        })
    };
    assert_eq!(slow(false, 1 << 20), Some((80, Finding::Slow)));
    assert_eq!(slow(false, 50 << 20), Some((270, Finding::Slow)));
    assert_eq!(slow(true, 50 << 20), Some((40, Finding::Slow)));
}

#[test]
fn whoever_has_the_overdraft_must_be_quick_while_others_wait() {
    let held = |others_wait: bool| Overdrawn {
        holds: true,
        others_wait,
    };
    let request = watched(None, 1_000, |_, sight| {
        moves(sight, 0);
        sight.request = held(true);
    });
    assert_eq!(request, Some((30, Finding::RequestInTheWay)));
    let answer = watched(None, 1_000, |at, sight| sight.answer = held(at > 50));
    assert_eq!(answer, Some((80, Finding::AnswerInTheWay)));
    // Those who wait come and go: their time adds up.
    let at_times = watched(None, 1_000, |at, sight| sight.answer = held(at % 20 == 0));
    assert_eq!(at_times, Some((60, Finding::AnswerInTheWay)));
    let others_do_not = watched(None, 1_000, |_, sight| sight.answer = held(false));
    assert_eq!(others_do_not, None);
    let in_turns = watched(None, 1_000, |at, sight| sight.answer.holds = at % 20 == 0);
    assert_eq!(in_turns, None);
}
