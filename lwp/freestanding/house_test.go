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

// house lists what this module offers to code on threads, so that an
// allocation that gets into it is a failure. TestHouseIsWhole finds what is
// missing.
var house = []struct {
	name    string
	fn      any
	options []fs.Option
}{
	{"futex.Monotonic", futex.Monotonic, nil},
	{"futex.After", futex.After, nil},
	{"futex.At", futex.At, nil},
	{"futex.AtMonotonic", futex.AtMonotonic, nil},
	{"futex.Deadline.Passed", futex.Deadline.Passed, nil},
	{"futex.Deadline.Remaining", futex.Deadline.Remaining, nil},
	{"futex.Deadline.Monotonic", futex.Deadline.Monotonic, nil},
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
	{"futex.Outcome.String", futex.Outcome.String, nil},
	{"futex.Error.Unwrap", (*futex.Error).Unwrap, []fs.Option{fs.WithinCapacity}}, // an Errno is below 256
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
	{"futex.Scope.LockPI", futex.Scope.LockPI, nil},
	{"futex.Scope.TrylockPI", futex.Scope.TrylockPI, nil},
	{"futex.Scope.UnlockPI", futex.Scope.UnlockPI, nil},
	{"futex.Scope.WaitRequeuePI", futex.Scope.WaitRequeuePI, nil},
	{"futex.Scope.CmpRequeuePI", futex.Scope.CmpRequeuePI, nil},
	{"futex.Scope.WakeOp", futex.Scope.WakeOp, nil},
	{"futex.Scope.On", futex.Scope.On, nil},
	{"futex.Waitv", futex.Waitv, nil},
	{"futex.SetRobustList", futex.SetRobustList, nil},
	{"futex.GetRobustList", futex.GetRobustList, nil},
	{"futex.AbandonRobust", futex.AbandonRobust, nil},
	{"futex.PIMutex.Lock", (*futex.PIMutex).Lock, nil},
	{"futex.PIMutex.TryLock", (*futex.PIMutex).TryLock, nil},
	{"futex.PIMutex.LockFor", (*futex.PIMutex).LockFor, nil},
	{"futex.PIMutex.LockUntil", (*futex.PIMutex).LockUntil, nil},
	{"futex.PIMutex.Unlock", (*futex.PIMutex).Unlock, nil},
	{"futex.PIMutex.Share", (*futex.PIMutex).Share, nil},
	{"futex.PICond.Wait", (*futex.PICond).Wait, nil},
	{"futex.PICond.WaitFor", (*futex.PICond).WaitFor, nil},
	{"futex.PICond.WaitUntil", (*futex.PICond).WaitUntil, nil},
	{"futex.PICond.Signal", (*futex.PICond).Signal, nil},
	{"futex.PICond.Broadcast", (*futex.PICond).Broadcast, nil},
	{"futex.PICond.Share", (*futex.PICond).Share, nil},
	{"futex.RobustMutex.Lock", (*futex.RobustMutex).Lock, nil},
	{"futex.RobustMutex.TryLock", (*futex.RobustMutex).TryLock, nil},
	{"futex.RobustMutex.LockFor", (*futex.RobustMutex).LockFor, nil},
	{"futex.RobustMutex.LockUntil", (*futex.RobustMutex).LockUntil, nil},
	{"futex.RobustMutex.MakeConsistent", (*futex.RobustMutex).MakeConsistent, nil},
	{"futex.RobustMutex.Unlock", (*futex.RobustMutex).Unlock, nil},
	{"futex.Mutex.Share", (*futex.Mutex).Share, nil},
	{"futex.RWMutex.Share", (*futex.RWMutex).Share, nil},
	{"futex.Cond.Share", (*futex.Cond).Share, nil},
	{"futex.Semaphore.Share", (*futex.Semaphore).Share, nil},
	{"futex.Event.Share", (*futex.Event).Share, nil},
	{"futex.WaitGroup.Share", (*futex.WaitGroup).Share, nil},
	{"futex.Barrier.Share", (*futex.Barrier).Share, nil},
	{"futex.Once.Share", (*futex.Once).Share, nil},

	{"tls.Current", tls.Current, nil},
	{"tls.Key.Get", tls.Key[int].Get, nil},
	{"tls.Key.Ptr", tls.Key[[4]int].Ptr, nil},
	{"tls.Key.Set", tls.Key[string].Set, nil},
	{"tls.Key.In", tls.Key[int].In, nil},
	{"tls.Key.SetIn", tls.Key[string].SetIn, nil},
	{"tls.Storage.RunDestructors", (*tls.Storage).RunDestructors, nil},
	{"tls.Storage.Reset", (*tls.Storage).Reset, nil},
	{"tls.Below", tls.Below, nil},
	{"tls.Init", tls.Init, nil},

	{"lwp.Start", lwp.Start[int], nil},
	{"lwp.StartAttr", lwp.StartAttr[int], nil},
	{"lwp.Exit", lwp.Exit, nil},
	{"lwp.Abort", lwp.Abort, nil},
	{"lwp.SetDomain", lwp.SetDomain, nil},
	{"lwp.HoldFault", lwp.HoldFault, nil},
	{"lwp.KeepFault", lwp.KeepFault, nil},
	{"lwp.ReportFault", lwp.ReportFault, nil},
	{"lwp.DropFault", lwp.DropFault, nil},
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
	{"lwp.RuleError.Unwrap", (*lwp.RuleError).Unwrap, nil},
	{"lwp.State.Exited", lwp.State.Exited, nil},
	{"lwp.Process.IsChild", lwp.Process.IsChild, nil},
	{"lwp.Thread.TID", lwp.Thread.TID, nil},
	{"lwp.Reason.String", lwp.Reason.String, nil},
	{"lwp.Error.Unwrap", (*lwp.Error).Unwrap, []fs.Option{fs.WithinCapacity}},

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
	{"lwp.Parker.Init", (*lwp.Parker).Init, nil},
	{"lwp.Parker.Await", (*lwp.Parker).Await, nil},
	{"lwp.Parker.Signal", (*lwp.Parker).Signal, nil},
	{"lwp.Parker.Cancel", (*lwp.Parker).Cancel, nil},
	{"lwp.Handler.Call", (*lwp.Handler[[3]int]).Call, nil},
	{"lwp.Handler.CallFor", (*lwp.Handler[[3]int]).CallFor, nil},
	{"lwp.Handler.CallUntil", (*lwp.Handler[[3]int]).CallUntil, nil},
	{"lwp.Ring.TrySend", (*lwp.Ring[[3]int]).TrySend, nil},
	{"lwp.Ring.Send", (*lwp.Ring[[3]int]).Send, nil},
	{"lwp.Ring.SendFor", (*lwp.Ring[[3]int]).SendFor, nil},
	{"lwp.Ring.SendUntil", (*lwp.Ring[[3]int]).SendUntil, nil},
	{"lwp.Ring.TryRecv", (*lwp.Ring[[3]int]).TryRecv, nil},
	{"lwp.Ring.Recv", (*lwp.Ring[[3]int]).Recv, nil},
	{"lwp.Ring.RecvFor", (*lwp.Ring[[3]int]).RecvFor, nil},
	{"lwp.Ring.RecvUntil", (*lwp.Ring[[3]int]).RecvUntil, nil},
	{"lwp.Ring.Close", (*lwp.Ring[[3]int]).Close, nil},
	{"lwp.Ring.Free", (*lwp.Ring[[3]int]).Free, nil},
	{"lwp.Ring.Len", (*lwp.Ring[[3]int]).Len, nil},
	{"lwp.Ring.Cap", (*lwp.Ring[[3]int]).Cap, nil},
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
