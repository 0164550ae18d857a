// Package futex is the futex system call, complete for waiting, waking and
// requeueing, and the locks and other primitives built on it. All of it works
// from goroutines, from the kernel threads that package lwp creates, and
// between the two; green threads have their own in package sched.
//
// # Who sleeps how
//
// A wait on a goroutine goes through the runtime's system call entry, so that
// the goroutine gives up its P while it sleeps. A wait on one of our threads
// is the bare system call. Wakes never sleep and are always the bare call.
//
// # The primitives
//
// Every primitive is a plain struct of a few words without pointers. Its zero
// value is ready (Barrier alone needs a count), it can live on the Go heap, in
// off-heap memory or in the frame of a thread, and it must not be copied after
// first use, which go vet finds. Memory that is off the Go heap must be
// aligned as Go would align the type.
//
// Their words are read and written with sync/atomic, which is sequentially
// consistent: whatever happened before the release half of an operation
// (Unlock, Release, Set, Done, an arrival) synchronizes before the acquire half
// that it lets through. The race detector understands the same operations, so
// goroutines that use these primitives can be tested under -race.
//
// What is released by one atomic operation can be freed by the next owner:
// after that operation Mutex.Unlock, Semaphore.Release, Event.Set,
// WaitGroup.Done, Barrier.Wait of the serial caller and Once.Do touch the
// primitive's memory no more, and give at most its address to the kernel. A wake for memory
// that is something else by then is a stale wake; see [Wait]. Two are
// different: the memory of a Cond or RWMutex stays until the calls on it have
// returned.
//
// Misuse panics with a constant string that begins with "futex: ". On a
// goroutine it is an ordinary panic, on our threads a fault.
//
// Sources: futex(2); U. Drepper, "Futexes are tricky", 2011.
package futex
