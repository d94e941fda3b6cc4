// Package job runs work that outlives a request, and the process: scans,
// rotations, everything that touches hosts.
//
// A [Procedure] is a table of steps, read and run from the top. A [Plan] says
// for one [Run] of it which targets each row has, before the first row begins.
// The [Engine] takes every target through every row: it commits that it is
// going to ("intended"), calls the row's Do, and commits what came of it
// together with what the step has to record and an audit event. There is no
// other state than the row that was reached and the direction, so recovery
// after a crash at any instant is the same run again: what is done is not
// repeated, what was intended is.
//
// # The order
//
// No row begins before every target has been through the row above. Targets go
// in waves, the first of which is the canary; rows of a group go through one
// wave together before the next wave starts. The first failure holds the run:
// what is in flight ends and is recorded, nothing more begins. A target that
// is merely unavailable is tried again with growing pauses while the others of
// its wave go on, and the wave waits for it, or for a person to leave it out.
//
// # The verbs
//
// Create, Approve, Pause, Resume, Back and Leave are parts of a caller's transaction,
// and are followed by Wake. They take effect at the next safe point, which is
// the next commit of an intention: what is in flight is never cut off but by
// the end of the process, or of its claim on the run. A paused run therefore
// may still have steps in flight for a while; their outcome is recorded.
//
// Going back before the procedure's Turn is the table read upwards with Undo,
// for exactly those targets of which the journal says that Do was intended.
// From the Turn on, and so for most finished runs, it is a new run, planned
// from the journal by Reverse. Past a Final row there is no way back.
//
// # More than one engine
//
// Any number of engines may work on one database. A run is worked on by the
// one that claimed it; a claim raises the run's epoch, and whatever an engine
// commits names the epoch of its claim, so an engine that slept while another
// took its run over can write nothing, and learns it. Steps are given the epoch
// to fence what they do on hosts. That no two steps work on one host at the
// same time holds within an engine only; across engines hosts have locks.
package job
