//! Side-by-side benchmarks of Teeline against real Kafka.
//!
//! What this crate does: it runs the same load through several paths in turns, in one call, so that whatever else the
//! machine does hits all of them alike; and it reports medians and their ratios to the direct path. Absolute figures
//! of one run mean little, ratios within it mean much.
//!
//! What it deliberately does not do: it asserts no speed. A slow machine must not fail a test.
//!
//! | module | duty |
//! |---|---|
//! | [`arguments`] | numbers on the command line |
//! | [`backup`] | a backup by Fetch, from the null broker and beside Kafka's own performance consumer |
//! | [`both_ways`] | what [`backup`] and [`restore`] have in common |
//! | [`charts`] | bars as SVG text |
//! | [`consume`] | what a proxy costs those who consume |
//! | [`contenders`] | what stands before the broker: nothing, HAProxy, Shotover, Teeline in each mode |
//! | [`cost`] | CPU time and memory of a process |
//! | [`economy`] | what writers and partitions cost in requests to the store, counted on both sides |
//! | [`fetching`] | consumers that cost next to nothing |
//! | [`flame`] | flame graphs of a contender under load |
//! | [`hop`] | what a proxy adds to a round trip, everything on one CPU |
//! | [`idle`] | memory at rest and of idle connections, and seconds until it listens again |
//! | [`lean`] | CPU per gigabyte of the contenders, with [`load`] and [`null_broker`] in the place of clients and Kafka |
//! | [`limits`] | what the machine itself asks for: a sync, and the codec alone |
//! | [`load`] | a load generator that costs next to nothing |
//! | [`micro`] | what criterion measured of single pieces, beside their physical limits |
//! | [`null_broker`] | a broker that costs next to nothing |
//! | [`pages`] | `docs/BENCHMARKS.md` from kept results |
//! | [`producer`] | Kafka's own performance producer, run and read |
//! | [`report`] | medians, ratios, the table, and the file kept under `benches/results` |
//! | [`restore`] | a restore, into the null broker and beside Kafka's own performance producer |
//! | [`results`] | kept results, read back |
//! | [`sweep`] | CPU per gigabyte over few and many connections, to few and many partitions |
//! | [`targets`] | what is promised of speed, held against results |
//! | [`timed`] | a program, run to its end, with what it used |
//! | [`wire`] | throughput, latency, CPU and memory with real Kafka |
#![allow(clippy::indexing_slicing, reason = "a benchmark stops at the first surprise")]

pub mod arguments;
pub mod backup;
pub mod both_ways;
pub mod charts;
pub mod consume;
pub mod contenders;
pub mod cost;
pub mod economy;
pub mod fetching;
pub mod flame;
pub mod hop;
pub mod idle;
pub mod lean;
pub mod limits;
pub mod load;
pub mod micro;
pub mod null_broker;
pub mod pages;
pub mod producer;
pub mod report;
pub mod restore;
pub mod results;
pub mod sweep;
pub mod targets;
pub mod timed;
pub mod wire;
