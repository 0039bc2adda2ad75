//! A rolling restart of two proxies behind one address, and how connections come back to the one that was away.

use teeline_tests::balancer::{Balancer, Resets};
use teeline_tests::fleet::{Fleet, Member};
use teeline_tests::wait::{seconds, wait_until};

use crate::sides::Side;

/// Each proxy is stopped as an operator does it, and started again once the clients go on without it. No application is
/// told of one more error, whatever it was told before.
pub(crate) fn restart_one_after_the_other(fleet: &mut Fleet, through: &Side) {
    let before = through.errors();
    for member in &mut fleet.0 {
        restart(member, through);
    }
    assert_eq!(through.errors(), before, "the restart of a proxy was noticed");
}

/// The same with one of them, where the balancer makes an orderly end of a reset: franz-go takes that for a refusal of its
/// set-up unless it is told not to.
pub(crate) fn restart_where_resets_are_ends(fleet: &mut Fleet, balancer: &Balancer, through: &mut Side) {
    through.let_franz_go_retry_ends();
    balancer.set_resets(Resets::AsEnds);
    let before = through.errors();
    restart(&mut fleet.0[0], through);
    assert_eq!(through.errors(), before, "the restart of a proxy was noticed");
    balancer.set_resets(Resets::Passed);
}

fn restart(member: &mut Member, through: &Side) {
    member.stop();
    through.await_progress();
    member.launch();
    member.wait_ready();
    // Nothing sends clients there but the age of their connections.
    wait_until("connections to spread", seconds(30), || {
        member.metric("teeline_connections_open") >= 3.0
    });
}
