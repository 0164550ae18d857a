// Package sched runs green threads: flows of control with stacks of their own
// that threads of package lwp, the workers, switch between without the kernel.
// They are called fibers from here on. A switch takes some nanoseconds and a
// fiber some two kilobytes, so that there can be a million.
//
//	s, err := sched.New(sched.Config{})
//	...
//	f, err := sched.Spawn(s, func(n *int) { *n = 42 }, &n)
//	...
//	err = f.Join()
//	...
//	err = s.Close()
//
// On a fiber, Go spawns another. Fibers that no worker runs wait in queues;
// workers that have nothing take from the others' queues. Nobody preempts a
// fiber: it runs until it calls something here that lets others run. That is
// Yield, YieldTo, Park, ParkFor, Sleep, Blocking, Join, Exit, whatever waits for
// others, and the end of its function, and nothing else. Two fibers on one
// worker can so share data without a lock; on two workers they run at the same
// time.
//
// # Contexts
//
// New, Spawn, Wait, Close, Shutdown, Hold, Release, Dump and Stats are for
// goroutines. Go, YieldTo and fiber-local storage (Set, Get, Ptr) are for
// fibers. Join, Detach and Unpark work on goroutines, on threads and on fibers;
// JoinFor and JoinWithin too. A fiber can unpark and join those of other
// schedulers; such a join takes a thread that waits, as Blocking does.
// A goroutine that waits sleeps on a futex and holds up no other; in JoinContext,
// JoinChan and WaitContext it holds no thread either. A fiber that waits at an lwp.Ring or
// in an lwp.Handler, on whatever side, leaves its worker to others and waits for
// somebody outside: that is no deadlock, and Close waits for it.
// Where Yield, Sleep, Exit and Blocking are not called on a fiber they do what
// package lwp does for a thread, so that a function can serve both. The rest
// returns ErrNotFiber or ErrHosted where it does not belong.
//
// # Memory
//
// What runs on a fiber is freestanding code, and what package lwp says of that
// and of pointers holds: no allocation, Go channels, panics or fmt, and no
// pointer stored in an object on the Go heap. The collector does not look at
// the stacks of fibers.
//
//   - What a goroutine passes to Spawn, the function and its argument, stays
//     reachable until the fiber has ended.
//   - What a fiber passes to Go is not kept by anybody. It lies in what the
//     goroutine passed, in a package variable, in an lwp.Arena, or on the stack
//     of a fiber that waits for the other's end: a stack does not move, and a
//     frame is there until its function returns. A parent that joins its
//     children before it returns can so have their arguments and results in
//     its own frame.
//   - A func value that Go is given is a function or method of the program, or
//     a closure that lies as safely as the argument.
//   - A Fiber, the handle, contains no pointer: it may be stored anywhere.
//
// What happens before Spawn or Go happens before the function begins; the end
// of a fiber happens before the return of its Join; Unpark happens before the
// return of the Park that it ends. What else fibers of different workers share
// needs sync/atomic.
//
// # Stacks
//
// A stack has a fixed size, a power of two from MinStackSize to MaxStackSize:
// Attr.StackSize, or Config.StackSize, or DefaultStackSize. It does not grow.
// Compiled code keeps some 900 bytes at its end free, so that of 2 KiB about
// one is for the fiber's own frames. One that would go beyond ends its fiber
// with the Fault StackOverflow, whatever the size, without a guard page; what
// does not check, assembly and C, must not run here. FiberInfo.StackUsed, as
// Dump prints it, says what was needed, and lwp/freestanding what can be.
// Freed stacks are used again, those used last first. Memory that no fiber
// uses goes back to the kernel when the scheduler has been idle for a second,
// or by Trim.
//
// # Order
//
// What becomes ready goes to the tail of its worker's queue. Yield takes the
// next from the head: everybody's turn comes. One that stops or ends is
// followed by the newest, whose stack is still in the cache, but once in a
// slice, which is about a millisecond, by the oldest: a fiber that is ready
// waits for those that run before it, and not for ever. Join runs its child at
// once if that is ready on the same worker. What others than fibers make
// ready, timers, and the inbox of pinned fibers are looked at every 128
// switches, so that a Sleep is late by the time of those; by a worker that has
// nothing of the kind to look for, every 1024, or when something comes.
//
// A fiber that computes for long keeps its worker, as does one that calls the
// kernel. The others in the queue are stolen by workers that are free; with one
// worker, or where all are kept, they wait.
//
// # Where a fiber runs
//
// A fiber can be on another worker after each call that lets others run. What
// belongs to the thread then changes under it: lwp.Self, values of package tls,
// the working directory of a worker that has its own. Fiber-local storage goes
// along: a tls.Key has a value for each fiber by Set, Get and Ptr here, with
// destructors at its end.
//
// Attr.Worker pins a fiber to a worker. It is never stolen and has its turn
// with the others there. While pinned fibers are ready, their worker looks at
// everything at each switch, which makes switches ten times as dear.
//
// Locks of package futex put the whole worker to sleep. For a moment that does
// no harm; but a fiber must not call what lets others run while it holds one,
// which a fiber behind it on the same worker could wait for. With those of this
// package it may; see below.
//
// # Waiting for each other
//
// Mutex, RWMutex, Cond, Semaphore, WaitGroup, Barrier, Once and Event are those
// of package futex for fibers: one that waits leaves its worker to others. The
// same lock can be waited for by fibers of one scheduler, or of several, by
// threads and by goroutines, at the same time. A goroutine that waits keeps its
// thread, as in a system call. Zero values are ready, but for the count of a
// Barrier, and hold no pointer: they may lie anywhere, in the frame of a fiber
// that waits for others too. Who lets the last of those go that wait at a Mutex,
// a Semaphore, a WaitGroup, a Barrier or an Event is done with its memory by
// then; the others stay until the calls on them have returned.
//
// Every wait has a form with a Limit, a deadline or a Token that somebody can
// Cancel, or both. It returns ErrTimeout or ErrCanceled if the limit came first;
// then the caller has nothing, and nothing was lost to it. What can be had at
// once is, whatever the limit.
//
// Nobody starves: a Mutex is passed on to one who waits after a bounded number of
// others were faster, RWMutex is phase-fair, and the rest is first come, first
// served. Misuse, such as the Unlock of a free lock, panics on a goroutine and
// ends a fiber or thread with a Fault. Reports of a deadlock say what is waited
// for.
//
// # Channels
//
// A Chan carries values as Go's channels do, and a Select waits for the first of
// several, which can be Timers, Events and Tokens too; fibers of one scheduler and
// of others, threads and goroutines can be at either end. Unlike Go's, a Send or
// Close of a closed Chan is an error; each call has a form with a Limit; a buffer
// is memory of the caller's (Init) or on the Go heap (MakeChan, on a goroutine);
// and the collector does not see what is on its way.
//
// A Chan can lie in the frame of a fiber, which may return as soon as it has the
// last value: who sent that does not come back to the Chan. For a Select that
// holds for the case that happened; what else it waited at stays until it returns.
//
// What a fiber needs of its stack, by measurement on amd64: a Send or Recv that
// waits a hundred bytes; one with a Limit five hundred, eight with a Token; a
// Select of two cases six hundred, of four eight, and some hundreds more with a
// Limit. On the smallest stack there is room for a Select of four, not for much
// around it. One of more than eight takes four kilobytes.
//
// # Time
//
// Every wait has a form with a Limit, which a time, an instant or a Token ends.
// For(d) counts from when the wait begins: where nothing waits it costs nothing.
// What ends a wait just when its limit comes is not lost: the wait, or the next
// one, has it. A Timer, a Ticker and AfterFunc are in memory of the program's.
//
// Nothing comes before its time by the monotonic clock. It comes late by what
// the worker takes for 128 switches and 50 microseconds, if it is busy, or for
// its wake by the kernel. What is due at one look comes in the order of the
// instants, and of one instant in the order in which it was set. All of a
// scheduler's workers share one queue of instants, in which it takes the same
// time to set and to cancel one, however many there are.
//
// # Blocking
//
// Blocking has a function run on a helper thread that may sleep in the kernel,
// while the worker goes on. It takes two wakes of a thread by futex. There are
// as many helpers as calls at one time, up to 256; more calls wait for one.
// The function is freestanding code, but not on a fiber: it has a thread's
// stack, and cannot Park, or Go.
//
// # What ends a fiber
//
// The return of its function, Exit, and a fault: what would end a thread of
// package lwp ends the fiber alone, and its worker goes on. Join returns the
// *lwp.Fault, with reason, place and trace; that of a detached fiber is
// printed on standard error. After a fault deferred calls do not run, and locks
// that were held stay held; destructors of fiber-local storage run in any case.
// A fault in a worker outside of fibers, or within the few instructions that
// hold a queue's lock, ends the process.
//
// One can join a fiber, once; its slot is then used again, and what is done
// with the old handle is an error (ErrJoined). A fiber that is neither joined
// nor detached keeps its slot until Close.
//
// # Deadlock
//
// When all workers are idle, nobody waits for a time and no Blocking call is under way,
// but there are fibers left, only somebody from outside can wake them. A
// goroutine that is going to says so by Hold, before the fibers wait, and
// Release, after. Without a Hold, Wait and Join return a *DeadlockError on a
// goroutine, with each fiber's name, what it waits for, since when and where;
// errors.Is matches ErrDeadlock, which is what Join returns on a thread. The
// fibers are still there and can be woken, but for Close: it ends them where
// they are, and returns the same error. On a fiber, Join does not return that:
// who waits there is in the report.
//
// Dump writes the same of all fibers, at any time, and Stats what the workers
// have done.
//
// # Limits
//
//   - No preemption, and stacks that do not grow; see above.
//   - No -race, -msan, -asan: New returns lwp.ErrRace.
//   - Fibers are not in the traceback, the profiles and the traces of the Go
//     runtime, nor in debuggers.
//   - A scheduler has up to 1024 workers. All schedulers together have up to 32
//     GiB of stacks of each size; half a terabyte of address space is reserved
//     for them, which is not memory until it is used. Where a process can have
//     less, there is room for fewer.
//   - A return from main ends the process, and the fibers with it.
package sched
