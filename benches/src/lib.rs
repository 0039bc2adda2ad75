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
//! | [`backup`] | a backup by Fetch, from the null broker and beside Kafka's own performance consumer |
//! | [`both_ways`] | what [`backup`] and [`restore`] have in common |
//! | [`contenders`] | what stands before the null broker: nothing, HAProxy, Teeline in each mode |
//! | [`cost`] | CPU time and memory of a process |
//! | [`economy`] | what writers and partitions cost in requests to the store, counted on both sides |
//! | [`lean`] | CPU per gigabyte of the contenders, with [`load`] and [`null_broker`] in the place of clients and Kafka |
//! | [`load`] | a load generator that costs next to nothing |
//! | [`micro`] | what criterion measured of single pieces, beside their physical limits |
//! | [`null_broker`] | a broker that costs next to nothing |
//! | [`paths`] | the ways from a producer to the broker: direct, and through Teeline in each mode |
//! | [`producer`] | Kafka's own performance producer, run and read |
//! | [`report`] | medians, ratios, the table, and the file kept under `benches/results` |
//! | [`restore`] | a restore, into the null broker and beside Kafka's own performance producer |
//! | [`timed`] | a program, run to its end, with what it used |
#![allow(clippy::indexing_slicing, reason = "a benchmark stops at the first surprise")]

pub mod backup;
pub mod both_ways;
pub mod contenders;
pub mod cost;
pub mod economy;
pub mod lean;
pub mod load;
pub mod micro;
pub mod null_broker;
pub mod paths;
pub mod producer;
pub mod report;
pub mod restore;
pub mod timed;
