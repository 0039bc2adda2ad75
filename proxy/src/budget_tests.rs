#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn budget(process: &ProcessBudget, bytes_max: usize) -> ConnectionBudget {
    process.requests(Arc::default(), bytes_max)
}

fn room(budget: &ConnectionBudget, bytes: usize) -> Option<Room> {
    let mut room = Room::default();
    budget.try_grow(&mut room, bytes).then_some(room)
}

#[tokio::test]
async fn room_returns_with_the_last_slice() {
    let process = ProcessBudget::new(100);
    let budget = budget(&process, 60);
    let held = room(&budget, 50).unwrap().hold(Bytes::from(vec![0; 50]));
    assert_eq!(process.bytes_used(), 50);
    assert!(room(&budget, 20).is_none());
    let slice = held.slice(10..20);
    drop(held);
    assert_eq!(process.bytes_used(), 50);
    drop(slice);
    assert_eq!(process.bytes_used(), 0);
    assert!(room(&budget, 20).is_some());
}

#[tokio::test]
async fn room_grows_with_what_arrives_and_a_frame_larger_than_all_of_it_passes() {
    let process = ProcessBudget::new(100);
    let budget = budget(&process, 1000);
    let mut large = Room::default();
    for bytes in [10, 40, 75, 80, 5000] {
        assert!(budget.try_grow(&mut large, bytes));
        assert_eq!(process.bytes_used(), bytes.min(75));
    }
    drop(large);
    assert_eq!(process.bytes_used(), 0);
}

#[tokio::test]
async fn unfinished_frames_that_hold_all_the_room_do_not_wait_for_each_other() {
    let process = ProcessBudget::new(100);
    let party = Arc::<Party>::default();
    let one = process.requests(Arc::clone(&party), 100);
    let two = process.requests(party, 100);
    let (mut first, mut second) = (room(&one, 35).unwrap(), room(&two, 35).unwrap());
    one.grow(&mut first, 70).await;
    assert!(one.has_overdraft() && !two.has_overdraft());
    assert!(!one.is_contended(), "nobody waits yet");
    let waiting = tokio::spawn({
        let two = two.clone();
        async move {
            two.grow(&mut second, 70).await;
            second
        }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "only one frame may go beyond");
    assert!(one.is_contended() && one.is_contended_here());
    assert!(
        !budget(&process, 100).is_contended_here(),
        "not before another broker"
    );
    drop(first);
    let second = waiting.await.unwrap();
    assert!(!one.has_overdraft(), "over with its frame");
    assert!(!two.is_contended());
    drop(second);
    assert_eq!(process.bytes_used(), 0);
}

#[tokio::test]
async fn what_is_stuck_before_one_broker_leaves_room_for_the_others() {
    let process = ProcessBudget::new(1000);
    // Two brokers stand still, and everybody sends to them what they may.
    let stuck: [Arc<Party>; 2] = Default::default();
    let mut held = Vec::new();
    for party in &stuck {
        let clients: Vec<_> = (0..50)
            .map(|_| process.requests(Arc::clone(party), 100))
            .collect();
        for client in clients.iter().cycle().take(5000) {
            held.extend(room(client, 1));
        }
    }
    assert!(held.len() < 950, "{} of 1000 bytes are stuck", held.len());
    let moving = budget(&process, 100);
    for _ in 0..100 {
        assert!(room(&moving, 30).is_some(), "{} are used", process.bytes_used());
    }
}

#[tokio::test(flavor = "current_thread")]
async fn whoever_waits_for_a_stopped_broker_lets_everything_else_run() {
    let process = ProcessBudget::new(100);
    let party = Arc::<Party>::default();
    let client = |party: &Arc<Party>| process.requests(Arc::clone(party), 100);
    // The share is full, and the overdraft taken.
    let held = room(&client(&party), 75).unwrap();
    let mut overdrawn = Room::default();
    client(&party).grow(&mut overdrawn, 10).await;
    let waits = client(&party);
    let waiting = tokio::spawn(async move { waits.grow(&mut Room::default(), 10).await });
    for _ in 0..20 {
        // A timer fires only if the waiting one sleeps.
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(room(&budget(&process, 100), 10).unwrap());
    }
    assert!(!waiting.is_finished());
    drop(held);
    waiting.await.unwrap();
}

#[tokio::test]
async fn who_waits_is_served_in_turn_and_not_overtaken() {
    let process = ProcessBudget::new(100);
    let party = Arc::<Party>::default();
    let clients: Vec<_> = (0..4)
        .map(|_| process.requests(Arc::clone(&party), 100))
        .collect();
    let held = room(&clients[0], 70).unwrap();
    let mut overdrawn = Room::default();
    clients[0].grow(&mut overdrawn, 10).await;
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    for (number, client) in clients.iter().cloned().enumerate().skip(1) {
        let told = told.clone();
        tokio::spawn(async move {
            let mut room = Room::default();
            client.grow(&mut room, 60).await;
            told.send(number).unwrap();
        });
        tokio::task::yield_now().await;
    }
    assert!(room(&clients[0], 1).is_none(), "others wait");
    assert!(
        room(&budget(&process, 100), 1).is_some(),
        "but not for this broker"
    );
    drop(held);
    for expected in 1..4 {
        assert_eq!(order.recv().await, Some(expected));
    }
}

#[tokio::test]
async fn buffers_are_lent_while_half_is_free_and_nobody_waits_for_them() {
    let process = ProcessBudget::new(100);
    let lender = process.lender();
    let loans: Vec<_> = (0..100).map_while(|_| lender.lend(10)).collect();
    assert_eq!(loans.len(), 5);
    let answers = process.answers(100);
    assert!(room(&answers, 30).is_some(), "answers have the other half");
    assert_eq!((process.bytes_used(), process.answer_bytes_used()), (0, 50));
    drop(loans);
    assert_eq!(process.answer_bytes_used(), 0);
}

#[test]
fn the_account_is_even_after_any_number_of_threads() {
    let process = ProcessBudget::new(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let parties: [Arc<Party>; 3] = Default::default();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..24_usize {
            let client = process.requests(Arc::clone(&parties[number % 3]), 4_000);
            tasks.spawn(async move {
                for step in 0..200_usize {
                    let mut room = Room::default();
                    let bytes = (number * 31 + step * 17) % 5_000 + 1;
                    if !client.try_grow(&mut room, bytes / 2) {
                        client.grow(&mut room, bytes / 2).await;
                    }
                    tokio::task::yield_now().await;
                    client.grow(&mut room, bytes).await;
                }
            });
        }
        let all = async { while tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .expect("nobody is forgotten");
        assert!(tasks.is_empty());
    });
    assert_eq!(process.bytes_used(), 0);
    assert_eq!(process.requests.waiting.load(Ordering::SeqCst), 0);
}
