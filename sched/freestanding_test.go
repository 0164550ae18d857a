package sched

import (
	"testing"

	fs "lwprt/lwp/freestanding"
	"lwprt/lwp/lwptest"
)

// onFiber are the functions that fibers call, and what runs on a fiber's stack.
var onFiber = []struct {
	name string
	fn   any
}{
	{"Go", Go[int]}, {"GoAttr", GoAttr[int]}, {"Yield", Yield}, {"YieldTo", YieldTo}, {"Park", Park}, {"ParkFor", ParkFor},
	{"Sleep", Sleep}, {"Exit", Exit}, {"Current", Current}, {"OnWorker", OnWorker}, {"Blocking", Blocking[int]},
	{"Fiber.Join", Fiber.Join}, {"Fiber.JoinFor", Fiber.JoinFor}, {"Fiber.Detach", Fiber.Detach}, {"Fiber.Unpark", Fiber.Unpark},
	{"Fiber.Serial", Fiber.Serial}, {"Get", Get[int]}, {"Set", Set[int]}, {"Ptr", Ptr[int]},
	{"ended", ended},

	{"Token.Cancel", (*Token).Cancel}, {"Token.Canceled", (*Token).Canceled}, {"For", For}, {"Until", Until},
	{"Chan.Init", (*Chan[int]).Init}, {"Chan.Send", (*Chan[int]).Send}, {"Chan.SendWithin", (*Chan[int]).SendWithin},
	{"Chan.TrySend", (*Chan[int]).TrySend}, {"Chan.Recv", (*Chan[int]).Recv}, {"Chan.RecvWithin", (*Chan[int]).RecvWithin},
	{"Chan.TryRecv", (*Chan[int]).TryRecv}, {"Chan.Close", (*Chan[int]).Close}, {"Chan.Len", (*Chan[int]).Len}, {"Chan.Cap", (*Chan[int]).Cap},
	{"Semaphore.Acquire", (*Semaphore).Acquire}, {"Semaphore.AcquireWithin", (*Semaphore).AcquireWithin},
	{"Semaphore.TryAcquire", (*Semaphore).TryAcquire}, {"Semaphore.Release", (*Semaphore).Release},

	{"ParkWithin", ParkWithin}, {"SleepWithin", SleepWithin}, {"Fiber.JoinWithin", Fiber.JoinWithin},
	{"GroupGo", GroupGo[int]}, {"GroupTryGo", GroupTryGo[int]}, {"Group.Wait", (*Group).Wait}, {"Group.WaitWithin", (*Group).WaitWithin},
	{"Group.Token", (*Group).Token}, {"Group.Cancel", (*Group).Cancel}, {"Group.SetLimit", (*Group).SetLimit}, {"member", memberFn},
	{"After", After}, {"AfterFunc", AfterFunc[int]}, {"Timer.Reset", (*Timer).Reset}, {"Timer.ResetAt", (*Timer).ResetAt}, {"Timer.Stop", (*Timer).Stop},
	{"Timer.Wait", (*Timer).Wait}, {"Timer.WaitWithin", (*Timer).WaitWithin}, {"Every", Every}, {"Ticker.Reset", (*Ticker).Reset},
	{"Ticker.Stop", (*Ticker).Stop}, {"Ticker.Wait", (*Ticker).Wait}, {"Ticker.WaitWithin", (*Ticker).WaitWithin},
}

// onThread are the functions that run on a worker's or a helper's own stack.
var onThread = []struct {
	name string
	fn   any
}{
	{"worker.main", (*worker).main}, {"poll", (*worker).poll}, {"feed", (*core).feed}, {"deliver", (*fiber).deliver},
	{"refill", refillFn}, {"spill", spillFn}, {"arm", armFn}, {"disarm", disarmFn}, {"newBlock", newBlockFn}, {"freeBlock", freeBlockFn}, {"release", releaseFn}, {"now", nowFn}, {"retime", retimeFn}, {"settle", settleFn}, {"submit", submitFn},
	{"helper.main", (*helper).main}, {"helper.exit", (*helper).exit}, {"hold", holdFn}, {"drop", dropFn}, {"report", reportFn},
	{"tell", tellFn}, {"lock", lockFn}, {"signal", signalFn}, {"outside", outsideFn}, {"outsideUntil", outsideUntilFn},
	{"newLocals", newLocalsFn}, {"freeLocals", freeLocalsFn}, {"stackOf", stackOf}, {"faulted", faulted},
}

func TestFibersCannotFault(t *testing.T) {
	lwptest.SkipRace(t)
	for _, f := range append(onFiber, onThread...) {
		t.Run(f.name, func(t *testing.T) {
			r, err := fs.Check(f.fn, fs.Except("lwprt/sched.(*core).report", "goroutines alone get that far"))
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Error(r)
			}
		})
	}
}
