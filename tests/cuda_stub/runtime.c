/* A CUDA runtime, cuBLAS and driver with one imaginary H200, for counting: kernels are counted and not run.

   Preloaded before torch's own libraries, and found by Triton as the driver libcuda.so.1. Device memory is address space
   of this process, in which small copies are made and large ones are not: results have no meaning. While a stream is
   captured into a graph, nothing else is counted, and a wait or a copy between host and device is an error. Whatever
   else torch and Triton import is defined by a list that `build` in test_counts.py makes: calls that do nothing,
   kernels, products, waits. */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MEMORY (143771ull << 20)
#define KEPT_BYTES 65536 /* larger copies are counted only */
#define ADD(counter) __sync_fetch_and_add(captured ? &nodes : &counter, 1)
#define SHARED_MEMORY 232448
#define PROCESSORS 132

long count_kernels, count_triton, count_products, count_copies, count_fills, count_waits, count_graphs;
static cudaStream_t captured;
static long nodes;
static __thread enum cudaStreamCaptureMode mode; /* relaxed: torch waits for something that is not captured */
static cudaError_t spoilt; /* by what cannot be captured */

#pragma GCC visibility push(hidden) /* other libraries have functions of these names */
int nothing(void) { return 0; }
int kernel(void) { ADD(count_kernels); return 0; }
int triton(void) { ADD(count_triton); return 0; }
int product(void) { ADD(count_products); return 0; }
int waiting(void) {
  if (captured && mode != cudaStreamCaptureModeRelaxed) spoilt = cudaErrorStreamCaptureUnsupported;
  ADD(count_waits);
  return captured ? spoilt : 0;
}
int fill(void) { ADD(count_fills); return 0; }
#pragma GCC visibility pop

/* The device. Numbers of attributes are the same in runtime (cudaDevAttr...) and driver (CU_DEVICE_ATTRIBUTE_...). */
static int attribute(int which) {
  switch (which) {
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return SHARED_MEMORY;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return SHARED_MEMORY + 1024;
    case cudaDevAttrMultiProcessorCount: return PROCESSORS;
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrComputeCapabilityMinor: return 0;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxRegistersPerBlock: return 65536;
    default: return 1;
  }
}
cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return 0; }
cudaError_t cudaGetDevice(int *n) { *n = 0; return 0; }
cudaError_t cudaDriverGetVersion(int *n) { *n = CUDART_VERSION; return 0; }
cudaError_t cudaRuntimeGetVersion(int *n) { *n = CUDART_VERSION; return 0; }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr which, int d) { *v = attribute(which); return 0; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "NVIDIA H200");
  p->totalGlobalMem = MEMORY;
  p->major = 9;
  p->multiProcessorCount = PROCESSORS;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = SHARED_MEMORY;
  p->sharedMemPerMultiprocessor = SHARED_MEMORY + 1024;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->warpSize = 32;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->l2CacheSize = 60 << 20;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  return 0;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *low, int *high) { *low = 0; *high = -5; return 0; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) {
  static long streams = 16; /* below are the default ones */
  *s = (cudaStream_t)__sync_add_and_fetch(&streams, 1);
  return 0;
}

/* Graphs. */
static int capturing(cudaStream_t s) { return captured && s == captured; }
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
  captured = s;
  nodes = spoilt = 0;
  return 0;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *m) {
  enum cudaStreamCaptureMode old = mode;
  mode = *m;
  *m = old;
  return 0;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = capturing(s); return 0; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *c, unsigned long long *i,
    cudaGraph_t *g, const cudaGraphNode_t **d, const cudaGraphEdgeData **e, size_t *n) {
  *c = capturing(s);
  if (i) *i = capturing(s);
  return 0;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
  captured = 0;
  *graph = (cudaGraph_t)nodes;
  return spoilt;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *all, size_t *n) { *n = (long)graph; return 0; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s) { ADD(count_graphs); return 0; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->binaryVersion = a->ptxVersion = 90;
  return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned x) {
  *n = 2;
  return 0;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *found) {
  *f = (void *)nothing;
  if (found) *found = 0;
  return 0;
}
const char *cudaGetErrorString(cudaError_t e) { return e == cudaErrorMemoryAllocation ? "out of memory" : "error"; }
const char *cudaGetErrorName(cudaError_t e) { return cudaGetErrorString(e); }

/* Memory: of the device below, and pinned memory of the host, told apart by where it lies. */
static char *device_memory;
static size_t used;
cudaError_t cudaMalloc(void **p, size_t n) {
  /* Addresses are never given out twice: 16 times the card's memory is enough for a test. */
  if (!device_memory) device_memory = mmap(0, 16 * MEMORY, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  n = (n + 511) & ~511ull;
  if (used + n > 16 * MEMORY) return cudaErrorMemoryAllocation;
  *p = device_memory + __sync_fetch_and_add(&used, n);
  return 0;
}
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) { *free = *total = MEMORY; return 0; }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) { return posix_memalign(p, 4096, n); }
cudaError_t cudaFreeHost(void *p) { free(p); return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  memset(a, 0, sizeof *a);
  int device = device_memory && (char *)p >= device_memory && (char *)p < device_memory + 16 * MEMORY;
  a->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  a->devicePointer = a->hostPointer = (void *)p;
  return 0;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t s) {
  if (captured && kind != cudaMemcpyDeviceToDevice) return spoilt = cudaErrorStreamCaptureUnsupported;
  ADD(count_copies);
  if (n <= KEPT_BYTES) memcpy(to, from, n);
  else if (kind == cudaMemcpyDeviceToHost) memset(to, 0, n);
  return 0;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind) {
  waiting();
  return cudaMemcpyAsync(to, from, n, kind, 0);
}

/* cuBLAS offers one algorithm for every product. */
int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *p, int n, void *r,
    int *found) { *found = 1; memset(r, 0, 96); return 0; }

/* The driver, as Triton calls it. */
int cuDeviceGetAttribute(int *v, int which, int d) { *v = attribute(which); return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDriverGetVersion(int *n) { *n = CUDART_VERSION; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuFuncGetAttribute(int *v, int which, void *f) { *v = which ? 0 : 1024; return 0; } /* 0: threads of a block */
int cuPointerGetAttribute(void **device, int which, void *p) { *device = p; return 0; }
