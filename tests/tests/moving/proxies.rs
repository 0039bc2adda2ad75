//! A rolling restart of two proxies behind one address, and how connections come back to the one that was away.

use teeline_tests::fleet::Fleet;
use teeline_tests::wait::{seconds, wait_until};

use crate::sides::Side;

/// Each proxy is stopped as an operator does it, and started again once the clients go on without it.
pub(crate) fn restart_one_after_the_other(fleet: &mut Fleet, through: &Side) {
    let before = through.errors();
    for member in &mut fleet.0 {
        member.stop();
        through.await_progress();
        member.launch();
        member.wait_ready();
        // Nothing sends clients there but the age of their connections.
        wait_until("connections to spread", seconds(30), || {
            member.metric("teeline_connections_open") >= 3.0
        });
    }
    assert_eq!(through.errors(), before, "the restart of a proxy was noticed");
}
