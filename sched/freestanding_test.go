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
	{"Go", Go[int]}, {"GoAttr", GoAttr[int]}, {"Yield", Yield}, {"yield", yield}, {"YieldTo", YieldTo}, {"Park", Park}, {"ParkFor", ParkFor},
	{"Sleep", Sleep}, {"Exit", Exit}, {"Current", Current}, {"OnWorker", OnWorker}, {"Blocking", Blocking[int]},
	{"Fiber.Join", Fiber.Join}, {"Fiber.JoinFor", Fiber.JoinFor}, {"Fiber.Detach", Fiber.Detach}, {"Fiber.Unpark", Fiber.Unpark},
	{"Fiber.Serial", Fiber.Serial}, {"Get", Get[int]}, {"Set", Set[int]}, {"Ptr", Ptr[int]},
	{"awaitParker", awaitParker}, {"signalParker", signalParker}, {"enterParker", enterParker}, {"cancelParker", cancelParker},
	{"callOn", callOn}, {"keepFault", keepFault}, {"ended", ended},
	{"spawn", spawn}, {"spawned", spawned}, {"join", join}, {"joined", joined},

	{"Token.Cancel", (*Token).Cancel}, {"Token.Canceled", (*Token).Canceled}, {"For", For}, {"Until", Until},
	{"Chan.Init", (*Chan[int]).Init}, {"Chan.Send", (*Chan[int]).Send}, {"Chan.SendWithin", (*Chan[int]).SendWithin},
	{"Chan.TrySend", (*Chan[int]).TrySend}, {"Chan.Recv", (*Chan[int]).Recv}, {"Chan.RecvWithin", (*Chan[int]).RecvWithin},
	{"Chan.TryRecv", (*Chan[int]).TryRecv}, {"Chan.Close", (*Chan[int]).Close}, {"Chan.Len", (*Chan[int]).Len}, {"Chan.Cap", (*Chan[int]).Cap},
	{"Chan.SendCase", (*Chan[int]).SendCase}, {"Chan.RecvCase", (*Chan[int]).RecvCase},
	{"Select", Select}, {"SelectWithin", SelectWithin}, {"TrySelect", TrySelect},
	{"Semaphore.Acquire", (*Semaphore).Acquire}, {"Semaphore.AcquireWithin", (*Semaphore).AcquireWithin},
	{"Semaphore.TryAcquire", (*Semaphore).TryAcquire}, {"Semaphore.Release", (*Semaphore).Release},
	{"Mutex.Lock", (*Mutex).Lock}, {"Mutex.TryLock", (*Mutex).TryLock}, {"Mutex.LockWithin", (*Mutex).LockWithin},
	{"Mutex.Unlock", (*Mutex).Unlock},
	{"RWMutex.RLock", (*RWMutex).RLock}, {"RWMutex.RLockWithin", (*RWMutex).RLockWithin},
	{"RWMutex.TryRLock", (*RWMutex).TryRLock}, {"RWMutex.RUnlock", (*RWMutex).RUnlock}, {"RWMutex.Lock", (*RWMutex).Lock},
	{"RWMutex.LockWithin", (*RWMutex).LockWithin}, {"RWMutex.TryLock", (*RWMutex).TryLock}, {"RWMutex.Unlock", (*RWMutex).Unlock},
	{"Cond.Wait", (*Cond).Wait}, {"Cond.WaitWithin", (*Cond).WaitWithin}, {"Cond.Signal", (*Cond).Signal},
	{"Cond.Broadcast", (*Cond).Broadcast},
	{"WaitGroup.Add", (*WaitGroup).Add}, {"WaitGroup.Done", (*WaitGroup).Done}, {"WaitGroup.Wait", (*WaitGroup).Wait},
	{"WaitGroup.WaitWithin", (*WaitGroup).WaitWithin},
	{"Barrier.Init", (*Barrier).Init}, {"Barrier.Wait", (*Barrier).Wait}, {"Barrier.WaitWithin", (*Barrier).WaitWithin},
	{"Once.Do", (*Once).Do}, {"Once.DoWithin", (*Once).DoWithin},
	{"Event.Set", (*Event).Set}, {"Event.Reset", (*Event).Reset}, {"Event.IsSet", (*Event).IsSet}, {"Event.Wait", (*Event).Wait},
	{"Event.WaitWithin", (*Event).WaitWithin}, {"Event.Case", (*Event).Case}, {"eventReady", eventReady},
	{"Token.Case", (*Token).Case}, {"tokenReady", tokenReady},

	{"ParkWithin", ParkWithin}, {"SleepWithin", SleepWithin}, {"Fiber.JoinWithin", Fiber.JoinWithin},
	{"GroupGo", GroupGo[int]}, {"GroupTryGo", GroupTryGo[int]}, {"Group.Wait", (*Group).Wait}, {"Group.WaitWithin", (*Group).WaitWithin},
	{"Group.Token", (*Group).Token}, {"Group.Cancel", (*Group).Cancel}, {"Group.SetLimit", (*Group).SetLimit}, {"member", memberFn},
	{"After", After}, {"AfterFunc", AfterFunc[int]}, {"Timer.Reset", (*Timer).Reset}, {"Timer.ResetAt", (*Timer).ResetAt}, {"Timer.Stop", (*Timer).Stop},
	{"Timer.Wait", (*Timer).Wait}, {"Timer.Case", (*Timer).Case}, {"Ticker.Case", (*Ticker).Case}, {"timerReady", timerReady}, {"Timer.WaitWithin", (*Timer).WaitWithin}, {"Every", Every}, {"Ticker.Reset", (*Ticker).Reset},
	{"Ticker.Stop", (*Ticker).Stop}, {"Ticker.Wait", (*Ticker).Wait}, {"Ticker.WaitWithin", (*Ticker).WaitWithin},
}

// onThread are the functions that run on a worker's or a helper's own stack.
var onThread = []struct {
	name string
	fn   any
}{
	{"worker.main", (*worker).main}, {"poll", (*worker).poll}, {"feed", (*core).feed}, {"deliver", (*fiber).deliver},
	{"refill", refillFn}, {"spill", spillFn}, {"arm", armFn}, {"disarm", disarmFn}, {"newBlock", newBlockFn}, {"freeBlock", freeBlockFn}, {"release", releaseFn}, {"leaving", leavingFn}, {"now", nowFn}, {"retime", retimeFn}, {"settle", settleFn}, {"submit", submitFn}, {"replace", replaceFn},
	{"helper.main", (*helper).main}, {"helper.exit", (*helper).exit}, {"hold", holdFn}, {"drop", dropFn}, {"report", reportFn},
	{"signalParkerFn", signalParkerFn},
	{"tell", tellFn}, {"lock", lockFn}, {"gone", goneFn}, {"claim", claimFn}, {"signal", signalFn}, {"outside", outsideFn}, {"outsideUntil", outsideUntilFn},
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
