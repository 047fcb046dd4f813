// A relay as a Go programmer writes it: POST /api/v1/stream normalizes OpenAI's chat stream, /memory answers without an
// upstream, everything else goes through httputil.ReverseProxy. Built and started by go_net_http.py.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
)

const question = `{"model":"bench","messages":[{"role":"user","content":"Tell me a story about a lighthouse keeper."}],` +
	`"stream":true,"stream_options":{"include_usage":true}}`

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
	Usage *usage `json:"usage"`
}

type event struct {
	Type         string  `json:"type"`
	Seq          int     `json:"seq,omitempty"`
	Text         string  `json:"text,omitempty"`
	Usage        *usage  `json:"usage,omitempty"`
	FinishReason *string `json:"finish_reason,omitempty"`
	Finished     *bool   `json:"finished,omitempty"`
}

// stream writes events as they come, each flushed: without that a client waits for the buffer to fill.
type stream struct {
	w       http.ResponseWriter
	flusher http.Flusher
	seq     int
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	return &stream{w: w, flusher: w.(http.Flusher)}
}

func (s *stream) send(e event) error {
	if e.Type != "done" {
		s.seq++
		e.Seq = s.seq
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", e.Type, data); err != nil {
		return err
	}
	s.flusher.Flush()
	return nil
}

func (s *stream) end(reason *string, used *usage) {
	finished := true
	if s.send(event{Type: "finish", FinishReason: reason, Usage: used}) == nil {
		_ = s.send(event{Type: "done", Finished: &finished})
	}
}

func relay(client *http.Client, target string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, target, strings.NewReader(question))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		request.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		out := newStream(w)
		var reason *string
		var used *usage
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			data, found := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
			if !found {
				continue
			}
			if bytes.Equal(data, []byte("[DONE]")) {
				out.end(reason, used)
				continue
			}
			var c chunk
			if err := json.Unmarshal(data, &c); err != nil {
				return
			}
			if c.Usage != nil {
				used = c.Usage
			}
			for _, choice := range c.Choices {
				if choice.FinishReason != nil {
					reason = choice.FinishReason
				}
				if choice.Delta.Content != "" {
					if out.send(event{Type: "text.delta", Text: choice.Delta.Content}) != nil {
						return
					}
				}
			}
		}
	}
}

func fromMemory(texts []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := newStream(w)
		for _, text := range texts {
			if out.send(event{Type: "text.delta", Text: text}) != nil {
				return
			}
		}
		reason := "stop"
		out.end(&reason, nil)
	}
}

func readTexts() []string {
	raw, err := os.ReadFile(os.Getenv("BENCH_WORDS"))
	if err != nil {
		log.Fatal(err)
	}
	var words []string
	for _, line := range strings.Split(string(raw), "\n") {
		if line == "" {
			continue
		}
		var word string
		if err := json.Unmarshal([]byte(`"`+line+`"`), &word); err != nil {
			log.Fatal(err)
		}
		words = append(words, word)
	}
	count, err := strconv.Atoi(os.Getenv("BENCH_EVENTS"))
	if err != nil {
		log.Fatal(err)
	}
	texts := make([]string, count)
	for i := range texts {
		texts[i] = "0000000000000" + words[i%len(words)]
	}
	return texts
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /memory", fromMemory(readTexts()))
	if upstream := os.Getenv("BENCH_UPSTREAM"); upstream != "" {
		target, err := url.Parse(upstream)
		if err != nil {
			log.Fatal(err)
		}
		transport := &http.Transport{MaxIdleConns: 20000, MaxIdleConnsPerHost: 20000}
		mux.HandleFunc("POST /api/v1/stream", relay(&http.Client{Transport: transport}, upstream))
		root := &url.URL{Scheme: target.Scheme, Host: target.Host}
		proxy := httputil.NewSingleHostReverseProxy(root)
		proxy.Transport = transport
		proxy.FlushInterval = -1
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			// The server closes the body when the response begins. Where a provider answers at once, the transport may
			// still be looking for its end, and would drop the connection in the middle of the answer.
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			proxy.ServeHTTP(w, r)
		})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("BENCH_PORT"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, mux))
}
