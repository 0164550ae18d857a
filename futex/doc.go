// Package futex is the futex system calls, complete but for their historic
// forms, and the locks and other primitives built on them. All of it works from
// goroutines, from the kernel threads that package lwp creates, and between the
// two, and between processes where that is asked for; green threads have their
// own in package sched.
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
// primitive's memory no more, and give at most its address to the kernel. A
// wake for memory that is something else by then is a stale wake; see [Wait].
// The memory of a Cond, PICond, RWMutex or RobustMutex is different: it stays
// until the calls on it have returned.
//
// # Between processes
//
// A primitive in memory that several processes map, with MAP_SHARED, works
// between all of them after one of them has called Share: once, while the
// primitive is in its zero value (a Barrier: after Init) and before anybody
// uses it. The others may call Share again, but do not use the primitive before
// the first call has returned. Share panics if the primitive is in use. What is
// not shared works within one address space, whatever memory it lies in, and
// its sleeps and wakes need no look at the mapping.
//
// The calls of a [Scope] are for either: Private.Wait and Shared.Wait.
//
// # Owners
//
// Most primitives have no owner. Two locks do, because the kernel has to know
// who holds them: a [PIMutex], to lend that one priority, and a [RobustMutex],
// to give the lock to another when that one ends. The owner is a kernel task. A
// thread of ours is one; a goroutine is locked to its thread from Lock to
// Unlock. Their calls return errors, ErrOwnerDied among them: it comes with the
// lock held.
//
// An owner is known by its TID, so these locks work between processes of one
// PID namespace. What a process holds is not its forked child's.
//
// # Misuse
//
// Misuse panics with a constant string that begins with "futex: ". On a
// goroutine it is an ordinary panic, on our threads a fault.
//
// Sources: futex(2), set_robust_list(2); pi-futex, robust-futexes,
// futex-requeue-pi and futex2 in the kernel's documentation; U. Drepper,
// "Futexes are tricky", 2011.
package futex
