package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnswer(t *testing.T) {
	recorder := httptest.NewRecorder()
	answer(recorder, httptest.NewRequest("GET", "/a", nil))
	if !strings.HasSuffix(recorder.Body.String(), "path=/a\n") {
		t.Fatal(recorder.Body.String())
	}
}
