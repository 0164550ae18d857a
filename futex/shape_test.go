package futex_test

import (
	"reflect"
	"testing"

	"lwprt/futex"
)

func TestPrimitivesHoldNoPointersAndFewWords(t *testing.T) {
	var pointers func(t reflect.Type) bool
	pointers = func(t reflect.Type) bool {
		switch t.Kind() {
		case reflect.Struct:
			for i := range t.NumField() {
				if pointers(t.Field(i).Type) {
					return true
				}
			}
			return false
		case reflect.Array:
			return pointers(t.Elem())
		}
		return t.Kind() < reflect.Bool || t.Kind() > reflect.Complex128
	}
	for _, p := range []any{
		new(futex.Mutex), new(futex.RWMutex), new(futex.Cond), new(futex.Semaphore), new(futex.Event),
		new(futex.Barrier), new(futex.WaitGroup), new(futex.Once), new(futex.Deadline),
		new(futex.PIMutex), new(futex.PICond), new(futex.RobustMutex),
	} {
		typ := reflect.TypeOf(p).Elem()
		if pointers(typ) {
			t.Errorf("%v holds a pointer: it cannot live off the heap", typ)
		}
		if typ.Size() > 24 {
			t.Errorf("%v has %d bytes", typ, typ.Size())
		}
	}
}

// A thread has no heap: what is local must stay in its frame, and no call may
// allocate.
func TestLocalPrimitivesDoNotEscape(t *testing.T) {
	n := testing.AllocsPerRun(100, func() {
		var (
			m    futex.Mutex
			rw   futex.RWMutex
			cond futex.Cond
			sem  futex.Semaphore
			ev   futex.Event
			bar  futex.Barrier
			wg   futex.WaitGroup
			once futex.Once
			pi   futex.PIMutex
			pc   futex.PICond
			x    uint32
			ran  int
		)
		m.Lock()
		if m.LockFor(1) {
			t.Error("took a held Mutex")
		}
		cond.WaitFor(&m, 1)
		cond.Signal()
		cond.Broadcast()
		m.Unlock()
		if !rw.TryRLock() || rw.TryLock() {
			t.Error("RWMutex")
		}
		rw.RUnlock()
		rw.Lock()
		if rw.TryRLock() {
			t.Error("RWMutex")
		}
		rw.Unlock()
		rw.RLock()
		ran--
		rw.RUnlock()
		sem.AcquireFor(1)
		sem.Release(1)
		sem.Acquire()
		ev.WaitFor(1)
		ev.Set()
		ev.Wait()
		bar.Init(1)
		bar.Wait()
		wg.Add(1)
		wg.WaitFor(1)
		wg.Done()
		wg.Wait()
		once.Do(func() { ran += 2 })
		if pi.Lock() == nil {
			pc.WaitFor(&pi, 1)
			pc.Signal()
			pi.LockFor(1)
			pi.Unlock()
		}
		futex.Wait(&x, 1)
		futex.WaitFor(&x, 0, 1)
		futex.Wake(&x, 1)
		futex.Private.CmpRequeue(&x, 1, &x, 1, 1)
		futex.Private.WakeOp(&x, &x, 1, 1, futex.WordOp{})
		futex.Waitv([]futex.Word{futex.Private.On(&x, 1), futex.Shared.On(&x, 0)}, futex.After(1))
		futex.GetRobustList(0)
		if ran != 1 {
			t.Error("Once did not run")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
