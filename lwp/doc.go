// Package lwp makes kernel threads by clone(2), outside the scheduler of the
// Go runtime. A lightweight process is a kernel thread: a task of its own to
// the kernel, with its own TID, stack and registers, that shares the process's
// memory, descriptors and signal handlers.
//
//	t, err := lwp.Start(func(n *int) { *n = 42 }, &n)
//	...
//	err = t.Join()
//
// The Go runtime does not know these threads. The collector never stops them
// and the scheduler never moves them; they can have their own namespaces,
// working directory, CPU set and priority (Attr). In return they keep two rules.
//
// # Freestanding code
//
// What runs on a thread asks nothing of the runtime. Arithmetic, calls,
// methods, generics, interfaces, strings and slices within their capacity,
// maps that are only looked up, sync/atomic and raw system calls need nothing.
// Allocation, channels, go, panic and recover, maps that grow, contended locks
// of package sync, time.Now, fmt and files of package os do. Each of these has
// a counterpart that works on threads: Arena, package futex, Start, Abort,
// Sleep, Line, unix.RawSyscall. What does not escape is not allocated;
// go build -gcflags=-m tells.
//
// # Pointers
//
// The collector does not look at the stacks of threads, or at memory off the
// Go heap. What a thread reaches on the Go heap must be kept reachable by a
// goroutine or a package variable for as long; Start does that for its
// argument and what that leads to.
//
// A thread may store pointers, and strings, slices, interfaces and structs that
// hold them, on its own stack and in memory off the Go heap (Arena) at any
// time. It must not store them in objects on the Go heap, nor overwrite a
// pointer to such an object in a package variable. While the collector marks,
// it must hear of every pointer there that is overwritten (the deletion
// barrier): a goroutine whose stack has been scanned may have just read that
// pointer, and hold the last one to an object that would then be freed in use.
// A thread has no way to tell the collector. It may store scalars anywhere, and
// so a Ref or an index in the place of a pointer.
//
// While the collector marks, compiled code calls a write barrier for each
// store of a pointer that is not to the function's own frame, or for each run
// of them. On a thread that call faults, and the handler of faults sees that
// the barrier has nothing to do and returns past it. One such store then costs
// about a thousand times what it costs otherwise: 2.3 to 3.1 µs in place of 2.3
// to 2.7 ns, measured by BenchmarkPointerStore, which divides the CPU time of
// 256 stores, on an amd64 virtual machine. Stores of scalars cost nothing more.
// A single store to the Go heap passes in the same way, so nothing reports it;
// a copy of pointers to there ends the thread with WriteBarrier.
//
// # Faults
//
// SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP and SIGSYS that an instruction of a
// thread causes end that thread and nothing else. So does every mistake above,
// because what the runtime needs first is not there. Join then returns a
// *Fault: the reason in terms of Go, the place and the stack. Attr.FaultPolicy
// and Attr.OnFault change what happens. A detached thread's fault is reported
// on standard error when its memory is taken back, by the next Start, Detach or
// Trim. Signals that somebody sends stay the program's own affair, and on all
// other threads everything is as it would be without this package.
//
// The frames of a thread that faulted are given up, not unwound:
//
//   - Deferred calls do not run. Destructors of thread-local storage and exit
//     hooks (OnExit) do.
//   - A lock that was held stays held: one of package futex, but for a
//     futex.RobustMutex, whose next owner is told; and any that
//     library code had taken. A file of package os that a thread tried to
//     write cannot be written after that, nor its descriptor be closed; what a
//     library sets up at first use, under a sync.Once, is waited for for ever.
//   - A stack that runs out within Start or Join takes with it what the call
//     had in hand: a handle's record, which is 128 bytes, and a stack that Start
//     had for the new thread.
//   - A thread whose stack runs out in Send or Recv of a Ring may have sent or
//     received and not woken who waits at the other end. (A green thread has
//     the worker's stack there.)
//   - A lock of package sync that a thread had to wait for has counted the
//     waiter, who will never come. Do not use it again.
//   - A map whose growth or assignment faulted is marked as being written: the
//     next use of it ends the program with a fatal error, concurrent use of a
//     map. What is in a structure of your own is whatever the last instruction
//     has left.
//   - What the thread has changed in the world stays changed.
//
// A fault before the thread's first instruction of Go, in the handler itself,
// or on a thread for which a C library has since replaced the signal's action
// kills the process with the signal.
//
// # Between threads and goroutines
//
// A Ring carries values between goroutines, threads and green threads of a
// scheduler, and lets either side wait. A Handler is a function on the Go side
// that threads and green threads call as if it were theirs: it runs on a goroutine,
// with all that the runtime has, and a panic in it is the caller's error. Thread.Done
// is closed when the thread has exited, and JoinContext joins with a context. What
// these wait with is a Parker, or a Gate in a goroutine's select, for others to
// build on.
//
// None of them polls. A goroutine that waits for a channel, a context or a turn holds
// no thread of the runtime, and nor does a call of a handler that waits in the
// runtime's manner. Two goroutines that serve all threads are started when the first
// of these is used, and sleep on a futex for the rest of the program; the runtime's
// report of a deadlock of all goroutines does not come from then on.
//
// # Processes
//
// StartProcess, Fork, VFork and SpawnExec make processes by the same system
// call, with the other flags: what is not shared is copied. A Go program must
// not fork by itself, as the child would have one thread of the many that its
// runtime, and its locks, need. Here the child has a g of its own whose m is
// nil, as a thread has, its own stack and thread pointer, no handler of the
// runtime's, and no signal blocked: what it runs is freestanding code, held to
// the two rules above, and a mistake ends it with SIGSEGV and a line on
// standard error.
//
// The collector does not follow a child that has a copy: its memory is as it
// was at the call, for good, marking or not. A child with CloneVM is like a
// thread in this; what it was passed is kept until Wait.
//
// A Process is waited for by Wait, which takes the end of that one process and
// never another's, or Release. AllThreadsSyscall, Kcmp and SharingOf are about
// threads and processes both.
package lwp
