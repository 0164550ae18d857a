package freestanding_test

import (
	"fmt"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	fs "lwprt/lwp/freestanding"
	"lwprt/tls"
)

// house lists what this module offers to code on threads. A new function for
// threads belongs here: then an allocation that gets into it is a failure.
var house = []struct {
	name    string
	fn      any
	options []fs.Option
}{
	{"futex.Monotonic", futex.Monotonic, nil},
	{"futex.After", futex.After, nil},
	{"futex.Deadline.Passed", futex.Deadline.Passed, nil},
	{"futex.Deadline.Remaining", futex.Deadline.Remaining, nil},
	{"futex.Wait", futex.Wait, nil},
	{"futex.WaitFor", futex.WaitFor, nil},
	{"futex.WaitUntil", futex.WaitUntil, nil},
	{"futex.Wake", futex.Wake, nil},
	{"futex.Scope.Wait", futex.Scope.Wait, nil},
	{"futex.Scope.WaitFor", futex.Scope.WaitFor, nil},
	{"futex.Scope.WaitUntil", futex.Scope.WaitUntil, nil},
	{"futex.Scope.WaitBitset", futex.Scope.WaitBitset, nil},
	{"futex.Scope.Wake", futex.Scope.Wake, nil},
	{"futex.Scope.WakeBitset", futex.Scope.WakeBitset, nil},
	{"futex.Scope.Requeue", futex.Scope.Requeue, nil},
	{"futex.Scope.CmpRequeue", futex.Scope.CmpRequeue, nil},
	{"futex.Mutex.Lock", (*futex.Mutex).Lock, nil},
	{"futex.Mutex.TryLock", (*futex.Mutex).TryLock, nil},
	{"futex.Mutex.LockFor", (*futex.Mutex).LockFor, nil},
	{"futex.Mutex.LockUntil", (*futex.Mutex).LockUntil, nil},
	{"futex.Mutex.Unlock", (*futex.Mutex).Unlock, nil},
	{"futex.RWMutex.Lock", (*futex.RWMutex).Lock, nil},
	{"futex.RWMutex.TryLock", (*futex.RWMutex).TryLock, nil},
	{"futex.RWMutex.Unlock", (*futex.RWMutex).Unlock, nil},
	{"futex.RWMutex.RLock", (*futex.RWMutex).RLock, nil},
	{"futex.RWMutex.TryRLock", (*futex.RWMutex).TryRLock, nil},
	{"futex.RWMutex.RUnlock", (*futex.RWMutex).RUnlock, nil},
	{"futex.Cond.Wait", (*futex.Cond).Wait, nil},
	{"futex.Cond.WaitFor", (*futex.Cond).WaitFor, nil},
	{"futex.Cond.WaitUntil", (*futex.Cond).WaitUntil, nil},
	{"futex.Cond.Signal", (*futex.Cond).Signal, nil},
	{"futex.Cond.Broadcast", (*futex.Cond).Broadcast, nil},
	{"futex.Semaphore.Acquire", (*futex.Semaphore).Acquire, nil},
	{"futex.Semaphore.AcquireFor", (*futex.Semaphore).AcquireFor, nil},
	{"futex.Semaphore.AcquireUntil", (*futex.Semaphore).AcquireUntil, nil},
	{"futex.Semaphore.TryAcquire", (*futex.Semaphore).TryAcquire, nil},
	{"futex.Semaphore.Release", (*futex.Semaphore).Release, nil},
	{"futex.Event.Set", (*futex.Event).Set, nil},
	{"futex.Event.Reset", (*futex.Event).Reset, nil},
	{"futex.Event.IsSet", (*futex.Event).IsSet, nil},
	{"futex.Event.Wait", (*futex.Event).Wait, nil},
	{"futex.Event.WaitFor", (*futex.Event).WaitFor, nil},
	{"futex.Event.WaitUntil", (*futex.Event).WaitUntil, nil},
	{"futex.WaitGroup.Add", (*futex.WaitGroup).Add, nil},
	{"futex.WaitGroup.Done", (*futex.WaitGroup).Done, nil},
	{"futex.WaitGroup.Wait", (*futex.WaitGroup).Wait, nil},
	{"futex.WaitGroup.WaitFor", (*futex.WaitGroup).WaitFor, nil},
	{"futex.WaitGroup.WaitUntil", (*futex.WaitGroup).WaitUntil, nil},
	{"futex.Barrier.Init", (*futex.Barrier).Init, nil},
	{"futex.Barrier.Wait", (*futex.Barrier).Wait, nil},
	{"futex.Once.Do", (*futex.Once).Do, nil},

	{"tls.Current", tls.Current, nil},
	{"tls.Key.Get", tls.Key[int].Get, nil},
	{"tls.Key.Ptr", tls.Key[[4]int].Ptr, nil},
	{"tls.Key.Set", tls.Key[string].Set, nil},
	{"tls.RunDestructors", tls.RunDestructors, nil},
	{"tls.Below", tls.Below, nil},
	{"tls.Init", tls.Init, nil},

	{"lwp.Start", lwp.Start[int], nil},
	{"lwp.StartAttr", lwp.StartAttr[int], nil},
	{"lwp.Exit", lwp.Exit, nil},
	{"lwp.OnExit", lwp.OnExit[int], nil},
	{"lwp.Self", lwp.Self, nil},
	{"lwp.Sleep", lwp.Sleep, nil},
	{"lwp.Yield", lwp.Yield, nil},
	{"lwp.Trim", lwp.Trim, nil},
	{"lwp.SetStackCache", lwp.SetStackCache, nil},
	{"lwp.AppendThreads", lwp.AppendThreads, []fs.Option{fs.WithinCapacity}},
	{"lwp.Thread.Join", lwp.Thread.Join, nil},
	{"lwp.Thread.TryJoin", lwp.Thread.TryJoin, nil},
	{"lwp.Thread.JoinFor", lwp.Thread.JoinFor, nil},
	{"lwp.Thread.Detach", lwp.Thread.Detach, nil},
	{"lwp.Thread.TID", lwp.Thread.TID, nil},

	{"lwp.StartProcess", lwp.StartProcess[int], nil},
	{"lwp.VFork", lwp.VFork[int], nil},
	{"lwp.Fork", lwp.Fork, nil},
	{"lwp.ExitProcess", lwp.ExitProcess, nil},
	{"lwp.Process.Wait", lwp.Process.Wait, nil},
	{"lwp.Process.WaitWith", lwp.Process.WaitWith, nil},
	{"lwp.Process.Signal", lwp.Process.Signal, nil},
	{"lwp.Process.PIDFD", lwp.Process.PIDFD, nil},
	{"lwp.Process.PID", lwp.Process.PID, nil},
	{"lwp.Process.Release", lwp.Process.Release, nil},
	{"lwp.State.Signal", lwp.State.Signal, nil},
	{"lwp.State.ExitCode", lwp.State.ExitCode, nil},
	{"lwp.Flags.Check", lwp.Flags.Check, nil},
	{"lwp.Kcmp", lwp.Kcmp, nil},

	{"lwp.New", lwp.New[[3]int], nil},
	{"lwp.NewSlice", lwp.NewSlice[int], nil},
	{"lwp.CloneBytes", lwp.CloneBytes, nil},
	{"lwp.CloneString", lwp.CloneString, nil},
	{"lwp.Arena.Used", (*lwp.Arena).Used, nil},
	{"lwp.Arena.Reset", (*lwp.Arena).Reset, nil},
	{"lwp.Arena.Close", (*lwp.Arena).Close, nil},
	{"lwp.Ref.Ptr", lwp.Ref[int].Ptr, nil},
	{"lwp.Ref.Set", (*lwp.Ref[int]).Set, nil},
	{"lwp.Println", lwp.Println, nil},
	{"lwp.Line.Print", (*lwp.Line).Print, nil},
	{"lwp.Line.Eprint", (*lwp.Line).Eprint, nil},
	{"lwp.Line.WriteFD", (*lwp.Line).WriteFD, nil},
	{"lwp.Line.Reset", (*lwp.Line).Reset, nil},
	{"lwp.Line.Len", (*lwp.Line).Len, nil},
	{"lwp.Line.Str", (*lwp.Line).Str, nil},
	{"lwp.Line.Byte", (*lwp.Line).Byte, nil},
	{"lwp.Line.Int", (*lwp.Line).Int, nil},
	{"lwp.Line.Uint", (*lwp.Line).Uint, nil},
	{"lwp.Line.Hex", (*lwp.Line).Hex, nil},
	{"lwp.Line.Ptr", (*lwp.Line).Ptr, nil},
	{"lwp.Line.Bool", (*lwp.Line).Bool, nil},
	{"lwp.Line.Dur", (*lwp.Line).Dur, nil},
	{"lwp.Line.Quote", (*lwp.Line).Quote, nil},
	{"lwp.Line.Float", (*lwp.Line).Float, nil},
}

func TestHouseCannotFault(t *testing.T) {
	begin := time.Now()
	for _, h := range house {
		t.Run(h.name, func(t *testing.T) {
			r, err := fs.Check(h.fn, h.options...)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Error(r)
			}
			if testing.Verbose() {
				t.Log(fmt.Sprint(r))
			}
		})
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Logf("took %v", d)
	}
}
